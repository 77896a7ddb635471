"""The signer, its tree, its keys, and the witnesses who cosign."""
