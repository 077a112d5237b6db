"""What the constraint is worth: models trained on under several rules of routing, and what each costs and saves.

rivals      the other rules, and the penalties of a router that is trained to stay on few ranks
conditions  the runs of the experiment, by name
texts       what is trained on, and documents that are held out
measure     loss of each document, and traffic, specialization and predicted times, of one model under one rule
driver      runs conditions, one record each; what has a record is not run again
tasks       adds accuracies to the records
compare     differences of runs with their intervals, and losses at equal copies
figures     SVG: points and lines in panels, heat maps
report      the page docs/experiment.md and its figures, from the records alone
"""
