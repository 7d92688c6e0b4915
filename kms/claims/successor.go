package claims

import (
	"fmt"
	"strings"
)

// Successor returns the measurement to expect when a machine whose measurement
// is base next boots the given files, as package predict describes them: of
// base exactly the claims that follow from files are replaced.
//
// Its error names the claim that cannot be predicted, and why. A base that was
// not a boot of the same kind, of a unified kernel image or by GRUB, has none that
// could be.
func Successor(base, files Set) (Set, error) {
	if base.Kind() != Measurement || files.Kind() != Files {
		return Set{}, fmt.Errorf("predicting a measurement: got %q over %q, want %q over %q", files.Kind(), base.Kind(), Files, Measurement)
	}
	if files.Has(LoaderKernel) {
		return loaderSuccessor(base, files)
	}
	if err := predictable(base, files); err != nil {
		return Set{}, err
	}
	applications, err := nextApplications(base, files)
	if err != nil {
		return Set{}, err
	}
	return New(Measurement, overlay(base, files, applications))
}

// predictable refuses a base in which something outside the files took part.
func predictable(base, files Set) error {
	if !base.Has(UKILinux) {
		return fmt.Errorf("predicting %s: the base boot did not start a unified kernel image", UKILinux)
	}
	for _, name := range []string{StubCommandLine, StubParameter, StubExtension} {
		if base.Has(name) {
			return fmt.Errorf("predicting %s: the base boot was given parameters, credentials or extensions beside its image (%s): remove them or measure a boot of the new files", KernelInitrd, name)
		}
	}
	embedded, _ := base.One(UKIInitrd)
	for _, initrd := range base.Values(KernelInitrd) {
		if initrd != embedded {
			return fmt.Errorf("predicting %s: in the base boot the initrd that the kernel received was not the image's alone", KernelInitrd)
		}
	}
	for _, name := range []string{KernelCommandLine, KernelInitrd} {
		if base.Has(name) && !files.Has(name) {
			return fmt.Errorf("predicting %s: the files do not tell what the kernel will receive", name)
		}
	}
	state, _ := base.One(SecureBoot)
	signature, _ := files.One(ImageSignature)
	if state == Enabled && signature != Present {
		return fmt.Errorf("predicting %s: the image is not signed and Secure Boot is enabled: it will not start", SecureBootAuthority)
	}
	return nil
}

// nextApplications keeps what ran before the image and replaces the image, and
// the kernel inside where the firmware measures it: systemd-stub loads it
// through the firmware, which with Secure Boot enabled the stub tells to skip
// the check that would measure it.
func nextApplications(base, files Set) ([]string, error) {
	image, haveImage := files.One(BootApplication)
	kernel, haveKernel := files.One(KernelImage)
	if !haveImage || !haveKernel {
		return nil, fmt.Errorf("predicting %s: the files name no image or no kernel", BootApplication)
	}
	next := []string{image}
	if state, _ := base.One(SecureBoot); state != Enabled {
		next = append(next, kernel)
	}
	before := base.Values(BootApplication)
	if len(before) < len(next) {
		return nil, fmt.Errorf("predicting %s: the base boot has %d, want at least %d", BootApplication, len(before), len(next))
	}
	return append(before[:len(before)-len(next)], next...), nil
}

// overlay replaces in place, so that the order of measuring is kept.
func overlay(base, files Set, applications []string) []Claim {
	var out []Claim
	var sections bool
	for c := range base.All() {
		switch {
		case c.Name == BootApplication:
			c.Value, applications = applications[0], applications[1:]
		case c.Name == KernelCommandLine, c.Name == KernelInitrd:
			c.Value, _ = files.One(c.Name)
		case strings.HasPrefix(c.Name, UKIPrefix):
			if !sections {
				out = append(out, ukiSections(files)...)
			}
			sections = true
			continue
		}
		out = append(out, c)
	}
	return out
}

func ukiSections(files Set) []Claim {
	var out []Claim
	for c := range files.All() {
		if strings.HasPrefix(c.Name, UKIPrefix) {
			out = append(out, c)
		}
	}
	return out
}
