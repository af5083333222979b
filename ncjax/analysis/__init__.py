"""From records to answers: load runs, compare families, draw figures."""
