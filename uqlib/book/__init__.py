"""How notebooks run and pages are built: parameters, staleness, computed pages, the HTML."""
