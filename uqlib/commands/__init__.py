"""The commands of `uqlib`, thin over the library; what one needs is imported when it runs."""
