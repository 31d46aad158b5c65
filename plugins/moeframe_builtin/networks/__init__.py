"""Networks that belong to no kind: experts and trunks are made of them."""
