package kms

// findFirst returns a volume's secret of an enrolment: pending until the commit.
func findFirst(secrets []Secret, volume, purpose string) *Secret {
	if row := findSecret(secrets, volume, purpose, SecretPending); row != nil {
		return row
	}
	return findSecret(secrets, volume, purpose, SecretCurrent)
}

// findSecret returns the newest secret of a volume for a purpose in a state.
func findSecret(secrets []Secret, volume, purpose string, status SecretStatus) *Secret {
	for i := len(secrets) - 1; i >= 0; i-- {
		s := &secrets[i]
		if s.Volume == volume && s.Status == status && s.Purpose == purpose {
			return s
		}
	}
	return nil
}

// findVersionOf returns the version of a volume's secret for a purpose, in whatever
// state.
func findVersionOf(secrets []Secret, volume, purpose string, version uint32) *Secret {
	for i := range secrets {
		s := &secrets[i]
		if s.Volume == volume && s.Version == version && s.Purpose == purpose {
			return s
		}
	}
	return nil
}
