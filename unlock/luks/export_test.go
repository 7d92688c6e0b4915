package luks

// Orphaned tells whether no keyslot holds the old volume key any more.
func (u *Under) Orphaned() bool { return len(u.plain.digests[u.before.digest].Keyslots) == 0 }
