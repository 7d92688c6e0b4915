package unlock

// AfterRecovery is what a boot demands of a header that cryptsetup has recovered.
func AfterRecovery(v Volume) error {
	_, err := v.afterRecovery()
	return err
}
