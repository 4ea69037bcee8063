"""One adapter a peer. It runs inside the environment of its peer, so it imports of ours only what needs no packages."""
