package claims

// Tier tells how much of a boot its measurement names.
type Tier string

const (
	// Exact names firmware, Secure Boot, boot applications, kernel, initrd and
	// command line, all from files: one measurement serves a group.
	Exact Tier = "exact"
	// Staged was started by a boot loader that interprets files of its own,
	// such as GRUB.
	Staged Tier = "staged"
	// Identity proves only which machine asks, not what it runs: no measured
	// boot that would name kernel, initrd and command line.
	Identity Tier = "identity"
)

// TierOf judges a measurement. Only UEFI firmware measures the state of Secure
// Boot before it hands over, so that later software cannot add it: without it
// the tier is [Identity].
func TierOf(measurement Set) Tier {
	_, uefi := measurement.One(SecureBoot)
	switch {
	case measurement.Kind() != Measurement, !uefi, !measurement.Has(BootApplication):
		return Identity
	case measurement.Has(LoaderKernel), measurement.Has(LoaderCommand), measurement.Has(LoaderFile):
		return Staged
	case hasAll(measurement, UKILinux, UKICommandLine, UKIInitrd), hasAll(measurement, KernelCommandLine, KernelInitrd):
		return Exact
	default:
		return Identity
	}
}

func hasAll(s Set, names ...string) bool {
	for _, name := range names {
		if _, ok := s.One(name); !ok {
			return false
		}
	}
	return true
}
