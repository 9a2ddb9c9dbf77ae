"""`qbitel demo`: two pods, two sidecars, real traffic, and a look at the wire between them."""
