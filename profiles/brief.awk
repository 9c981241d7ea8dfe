# What a reader wants of Snakemake's report: which step runs and why, how far it is, what went wrong.
/^(local)?rule .*:$/           { sub(/^local/, ""); sub(/:$/, ""); sub(/^rule /, ""); step = $0 }
/^ +wildcards: /               { sub(/^ +wildcards: [a-z]+=/, ""); step = step " " $0 }
/^ +reason: / && step != "all" { sub(/^ +reason: /, ""); printf "%s: %s\n", step, substr($0, 1, 150) }
/^[0-9]+ of [0-9]+ steps/      { print "  " $0 }
/Nothing to be done/           { print "Nothing is stale." }
/^uqlib: |WARNING:|ERROR:|CRITICAL:|^[A-Za-z]+(Error|Exception)( |:)|^The run up to there|Error in / && !/RuleException|WorkflowError|CalledProcess/ { print }
{ fflush() }
