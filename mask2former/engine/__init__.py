"""Running things.

setup    command line -> config, logs, data sets, seeds
launch   one process or many
run      the jobs: do_train, do_evaluate, do_test
trainer  the loop and its step
hooks    what happens around the steps
events   what is measured, and where it is written

Nothing is imported here: worker processes start faster with only what they need.
"""
