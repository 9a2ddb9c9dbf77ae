"""`qbitel ca`: authorities and certificates, in folders or in a cluster."""
