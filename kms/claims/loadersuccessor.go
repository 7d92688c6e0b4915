package claims

import (
	"fmt"
	"slices"
)

// loaderSuccessor is [Successor] for files that GRUB will read.
func loaderSuccessor(base, files Set) (Set, error) {
	if finding, found := base.One(LoaderFinding); found {
		return Set{}, fmt.Errorf("predicting %s: of the base boot the roles of files are not known: %s", LoaderKernel, finding)
	}
	if !base.Has(LoaderKernel) {
		return Set{}, fmt.Errorf("predicting %s: GRUB did not start the base boot", LoaderKernel)
	}
	text, _ := files.One(CommandLineText)
	line, _, err := LoaderLine(text)
	if err != nil {
		return Set{}, fmt.Errorf("predicting %s: %w", LoaderCommandLine, err)
	}
	applications, err := loaderApplications(base, files)
	if err != nil {
		return Set{}, err
	}
	var out []Claim
	for c := range base.All() {
		switch c.Name {
		case BootApplication:
			c.Value, applications = applications[0], applications[1:]
		case LoaderCommandLine:
			c = line
		case LoaderKernel:
			c.Value, _ = files.One(LoaderKernel)
		}
		out = append(out, c)
	}
	return New(Measurement, out)
}

// loaderApplications returns shim, GRUB as it is found now, and the kernel, which
// shim verifies and measures twice on GRUB's behalf.
func loaderApplications(base, files Set) ([]string, error) {
	kernel, ok := files.One(KernelImage)
	if signature, _ := files.One(ImageSignature); !ok || signature != Present {
		return nil, fmt.Errorf("predicting %s: the kernel is not signed, and Secure Boot is enabled: it will not start", BootApplication)
	}
	before := base.Values(BootApplication)
	n := len(before)
	if n < 4 || before[n-1] != before[n-2] {
		return nil, fmt.Errorf("predicting %s: the base boot does not show shim, GRUB and the kernel twice", BootApplication)
	}
	programs := files.Values(BootApplication)
	if len(programs) != n-2 {
		return nil, fmt.Errorf("predicting %s: the files name %d programs before the kernel, the base boot %d", BootApplication, len(programs), n-2)
	}
	for i, program := range programs[:n-3] {
		if program != before[i] {
			return nil, fmt.Errorf("predicting %s: program %d, shim, is another one than in the base boot: what authorities and SBAT level it measures, only its first boot will show",
				SecureBootAuthority, i+1)
		}
	}
	return append(slices.Clone(programs), kernel, kernel), nil
}

// PlatformSuccessor returns the platform set to expect when a machine whose set
// is base next boots the given files: another one where GRUB reads other files,
// which are the machine's.
func PlatformSuccessor(base, files Set) (Set, error) {
	if base.Kind() != Platform || files.Kind() != Files {
		return Set{}, fmt.Errorf("predicting a platform set: got %q over %q, want %q over %q", files.Kind(), base.Kind(), Files, Platform)
	}
	if !files.Has(LoaderKernel) {
		return base, nil
	}
	text, _ := files.One(CommandLineText)
	_, variables, err := LoaderLine(text)
	if err != nil {
		return Set{}, fmt.Errorf("predicting %s: %w", LoaderVariable, err)
	}
	machines := []string{LoaderVariable, LoaderFile, LoaderEnvironment, LoaderInitrd}
	var out []Claim
	for c := range base.All() {
		if !slices.Contains(machines, c.Name) {
			out = append(out, c)
		}
	}
	out = append(out, variables...)
	for c := range files.All() {
		if slices.Contains(machines[1:], c.Name) {
			out = append(out, c)
		}
	}
	return New(Platform, out)
}
