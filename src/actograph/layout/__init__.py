"""The row's fields, the bins, merging, and what is known of a layer. numpy only."""
