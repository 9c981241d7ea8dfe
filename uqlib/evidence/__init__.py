"""What stands: records of runs, the ledger of what papers claim, and the verdict of the one on the other."""
