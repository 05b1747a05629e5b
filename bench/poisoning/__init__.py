"""What hostile devices can do to a round under each aggregation rule, on logs of real people."""
