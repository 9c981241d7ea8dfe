"""What a notebook reports with: records, ledger, tables, figures, figures that move."""
