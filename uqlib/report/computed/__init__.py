"""Parts of pages that are computed from the ledgers: bars of the cover, verdicts, what the reader is asked."""
