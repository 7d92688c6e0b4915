package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// enrollFlags are what a command line says.
type enrollFlags struct {
	config, server, key, name, uki, template, mapping string
	devices                                           list
	fd                                                int
	noRecovery                                        bool
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

const noFD = -1

func parseEnroll(h host, args []string) (*enrollFlags, error) {
	var f enrollFlags
	set := flags(h, "enroll")
	set.StringVar(&f.config, "config", unlock.DefaultConfig, "`FILE` of the configuration, which is read if it exists and written")
	set.StringVar(&f.server, "server", "", "`URL` of the service, such as https://keywright.example:8443, to ask first (default: the configuration's)")
	set.StringVar(&f.key, "service-key", "", "`FINGERPRINT` of the service identity key as the service prints it, sha256:… (default: the configuration's)")
	set.StringVar(&f.name, "name", "", "`NAME` to propose for the machine (default: its host name)")
	set.Var(&f.devices, "device", "`DEVICE` of a LUKS2 volume; may be given several times (default: all that are open); one that an active machine has not enrolled is added to those it has")
	set.StringVar(&f.mapping, "mapping", "", "`NAME` below /dev/mapper that the one --device gets at boot (default: the one it is open under, else luks-UUID)")
	set.IntVar(&f.fd, "passphrase-fd", noFD, "file `DESCRIPTOR` to read the existing passphrase from, without one line feed at its end (default: ask)")
	set.BoolVar(&f.noRecovery, "no-recovery-key", false, "add no recovery key to the volumes")
	set.StringVar(&f.uki, "uki", "", "unified kernel image `FILE` of the next boot (default: the only one on the EFI system partition)")
	set.StringVar(&f.template, "ek-template", "", fmt.Sprintf("endorsement key `TEMPLATE`, one of %q (default: the one that the TPM prefers)", exchange.EKTemplates()))
	if err := parse(set, args); err != nil {
		return nil, err
	}
	return &f, f.checkMapping()
}

func (f *enrollFlags) checkMapping() error {
	if f.mapping == "" {
		return nil
	}
	if len(f.devices) != 1 {
		return fmt.Errorf("%w: --mapping names one volume: give it with one --device", errUsage)
	}
	if err := luks.CheckName(f.mapping); err != nil {
		return fmt.Errorf("%w: --mapping: %w", errUsage, err)
	}
	return nil
}

func enroll(ctx context.Context, h host, args []string) error {
	f, err := parseEnroll(h, args)
	if err != nil {
		return err
	}
	if known, err := f.addsTo(); err != nil || known != nil {
		return addVolumes(ctx, h, f, known, err)
	}
	c, err := f.configuration()
	if err != nil {
		return err
	}
	pins, err := c.Pins()
	if err != nil {
		return err
	}
	h.protect()
	list, err := servers(c.Servers, enrollServer)
	if err != nil {
		return err
	}
	devices, err := f.volumes()
	if err != nil {
		return err
	}
	identity, closeTPM, err := h.identity(ctx, c, 0)
	if err != nil {
		return err
	}
	defer closeTPM()
	c.EKTemplate, c.Machine = string(identity.EK().Template), identity.EK().MachineID()
	e := &unlock.Enrollment{
		TPM: identity, EventLog: c.EventLogPath(), Servers: list, Pins: pins,
		Name: f.machineName(identity.EK().MachineID()), Devices: devices, Passphrase: f.passphrase(h), NoRecoveryKey: f.noRecovery,
		NextBoot: h.nextBoot(c, f.uki), Initramfs: h.initramfs,
		Config: *c, ConfigPath: f.config, RunDir: h.run, Out: h.stdout,
	}
	volumes := c.Volumes
	enrolled, err := e.Run(ctx)
	if err != nil {
		return hintEnrolled(err, volumes)
	}
	printEnrolled(h.stdout, enrolled)
	return nil
}

// configuration reads the configuration, if there is one, and lays the flags
// over it.
func (f *enrollFlags) configuration() (*unlock.Config, error) {
	c, err := unlock.LoadConfig(f.config)
	if errors.Is(err, fs.ErrNotExist) {
		c, err = &unlock.Config{}, nil
	}
	if err != nil {
		return nil, err
	}
	c.Machine = "" // it becomes what it is by being enrolled
	c.Servers, c.ServiceKeys = preferring(f.server, c.Servers), preferring(f.key, c.ServiceKeys)
	if f.template != "" {
		c.EKTemplate = f.template
	}
	if len(c.Servers) == 0 || len(c.ServiceKeys) == 0 {
		return nil, fmt.Errorf("%w: --server and --service-key are needed: the service prints both when it starts", errUsage)
	}
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return c, nil
}

// preferring puts what was given before what is configured. What is not among it
// replaces all of it: it is another service's.
func preferring(given string, configured []string) []string {
	i := slices.Index(configured, given)
	switch {
	case given == "":
		return configured
	case i < 0:
		return []string{given}
	default:
		return append([]string{given}, slices.Delete(slices.Clone(configured), i, i+1)...)
	}
}

func enrollServer(host string, client *api.GuestClient) unlock.EnrollServer {
	return unlock.EnrollServer{Host: host, Enroller: client, Committer: client}
}

func (f *enrollFlags) volumes() ([]unlock.Device, error) {
	open, err := unlock.CryptDevices()
	if err != nil {
		return nil, err
	}
	if len(f.devices) == 0 {
		return open, nil
	}
	devices := make([]unlock.Device, 0, len(f.devices))
	for _, path := range f.devices {
		devices = append(devices, named(path, open))
	}
	if f.mapping != "" {
		devices[0].Name = f.mapping
	}
	return devices, nil
}

// named returns what is known of a device that is open.
func named(path string, open []unlock.Device) unlock.Device {
	given, err := os.Stat(path) //nolint:gosec // the operator names the device
	for _, d := range open {
		if info, statErr := os.Stat(d.Path); err == nil && statErr == nil && os.SameFile(given, info) {
			return unlock.Device{Path: path, Name: d.Name, Root: d.Root, Options: d.Options}
		}
	}
	return unlock.Device{Path: path}
}

// machineName returns a name that the service takes as it is.
func (f *enrollFlags) machineName(machine string) string {
	name := f.name
	if name == "" {
		name, _ = os.Hostname() // none is as good as one that is no name
		name = strings.ToLower(name)
	}
	if name == "" || name == "localhost" || name == "(none)" {
		name = "machine-" + exchange.ShortID(machine)
	}
	return name
}

// isSet tells whether a flag was given.
func isSet(set *flag.FlagSet, name string) bool {
	given := false
	set.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

// hintEnrolled tells the machine of this configuration from a copied TPM.
func hintEnrolled(err error, volumes []unlock.VolumeConfig) error {
	var failure *unlock.Failure
	if !errors.As(err, &failure) || failure.Code != api.CodeEnrolled || len(volumes) == 0 {
		return err
	}
	return fmt.Errorf("%w If it was approved with the volumes of its configuration, nothing is left to do; a volume that is not among them is added with --device", err)
}

func printEnrolledVolume(w io.Writer, v unlock.EnrolledVolume) {
	fmt.Fprintf(w, "  volume       %s on %s, keyslot %d\n", v.ID, v.Device, v.Slot)
	for _, slot := range v.RecoverySlots {
		fmt.Fprintf(w, "               recovery key in keyslot %d: keywright volume recovery-key %s\n", slot, v.ID)
	}
}

func printEnrolled(w io.Writer, e unlock.Enrolled) {
	fmt.Fprintf(w, "\nThis machine waits for approval (status %s).\n\n", e.Status)
	fmt.Fprintf(w, "  machine      %s (EK hash: compare it with the hypervisor's)\n", e.Machine)
	fmt.Fprintf(w, "  name         %s (proposed)\n", e.Name)
	for _, v := range e.Volumes {
		printEnrolledVolume(w, v)
	}
	fmt.Fprintf(w, "  measurement  %s (from %s)\n", e.Measurement, e.NextBoot)
	fmt.Fprintf(w, "  platform     %s\n\n", e.Platform)
	fmt.Fprintf(w, "An operator approves it with\n\n  keywright machine approve %s --ek-hash %s\n", e.Name, e.Machine)
}
