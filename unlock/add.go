package unlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"keywright.dev/kms/api"
	"keywright.dev/unlock/luks"
)

// StepStage stages the boots that can follow, once the new volume is in the files
// of the next one.
const StepStage Step = "stage-boots"

// Add adds volumes to those of an active machine while it runs, or takes up an
// addition that was interrupted. Config must be the machine's.
//
// The service counts a volume before the configuration names it, and the
// configuration names it before an initramfs does: wherever this is cut, the
// next boot asks for nothing that the service would refuse. The volumes that the
// machine has are not touched.
func (e *Enrollment) Add(ctx context.Context) (Enrolled, error) {
	e.adding = true
	result, err := e.carryOut(ctx, "adding volumes", e.addingSteps())
	if err != nil {
		return Enrolled{}, err
	}
	return result, e.forgetAdding()
}

// Adds tells whether devices are to be added to the volumes of a configuration:
// it has some, and none of these, but for those whose addition is under way.
func Adds(configPath string, c *Config, paths []string) (bool, error) {
	if len(c.Volumes) == 0 || len(paths) == 0 {
		return false, nil
	}
	e := &Enrollment{Config: *c, ConfigPath: configPath}
	begun, err := readList(e.addingPath(), addingHead)
	if err != nil {
		return false, fmt.Errorf("reading which volumes an interrupted addition has: %w", err)
	}
	for _, path := range paths {
		uuid := uuidOf(path)
		known := slices.ContainsFunc(c.Volumes, func(v VolumeConfig) bool { return v.Device == path || v.Device == "UUID="+uuid })
		if known && !slices.Contains(begun, uuid) {
			return false, nil
		}
	}
	return true, nil
}

// uuidOf returns the LUKS UUID of a device; empty where it has none that can be
// read.
func uuidOf(path string) string {
	device, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer device.Close()
	header, err := luks.ReadDevice(device)
	if err != nil {
		return ""
	}
	return header.UUID
}

func (e *Enrollment) addingSteps() []step {
	return slices.Concat(
		[]step{
			{name: StepRead, once: e.readAdded},
			{name: StepPassphrase, each: e.findPassphrase},
		},
		e.bindingSteps(e.clean),
		e.localSteps(),
	)
}

// AddingSteps returns the names of all steps of [Enrollment.Add] in their order.
func AddingSteps() []Step { return namesOf(new(Enrollment).addingSteps()) }

// bindingSteps give each volume a keyslot whose secret the service has. A volume
// that a boot received already has it.
func (e *Enrollment) bindingSteps(clean func(context.Context, *target) error) []step {
	steps := append([]step{
		{name: StepBegin, once: e.begin},
		{name: StepComplete, once: e.completeAdding},
		{name: StepClean, each: clean},
		{name: StepToken, each: of(luks.PurposeBoot, e.writeToken)},
		{name: StepRecord, once: e.recordAdding},
		{name: StepKeyslot, each: of(luks.PurposeBoot, e.addKeyslot)},
		{name: StepTest, each: of(luks.PurposeBoot, e.testKeyslot)},
		{name: StepAssign, each: of(luks.PurposeBoot, e.assignToken)},
	}, e.recoverySteps()...)
	for i, s := range steps {
		if s.each != nil {
			steps[i].each = e.unlessReceived(s.each)
		}
	}
	return steps
}

// localSteps have the service count the volumes, and then the next boot ask for
// them.
func (e *Enrollment) localSteps() []step {
	return []step{
		{name: StepCommit, once: e.commitAdding},
		{name: StepConfig, once: e.configureAdded},
		{name: StepInitramfs, once: e.makeInitramfs},
		{name: StepStage, once: e.stage},
	}
}

// readAdded reads the headers, and refuses what could not be configured before
// anything is changed.
func (e *Enrollment) readAdded(context.Context) error {
	if err := e.writable(); err != nil {
		return err
	}
	if err := e.readDevices(); err != nil {
		return err
	}
	begun, err := readList(e.addingPath(), addingHead)
	if err != nil {
		return fmt.Errorf("reading which volumes an interrupted addition has: %w", err)
	}
	for _, t := range e.targets {
		known := e.configured(t)
		if known != nil && !slices.Contains(begun, t.uuid()) {
			return fail(CodeDevice, fmt.Errorf("%s is enrolled already: %s has the volume with the LUKS UUID %s, which a boot opens as %s; a copy of it needs another UUID first (cryptsetup luksUUID)",
				t.path, e.ConfigPath, t.uuid(), known.Name))
		}
	}
	if err := checkVolumes(e.withAdded()); err != nil {
		return fail(CodeDevice, err)
	}
	return nil
}

// writable tells whoever may not finish so before he begins.
func (e *Enrollment) writable() error {
	dir := filepath.Dir(e.ConfigPath)
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("%s cannot be written: %w: run this as root", dir, err)
	}
	for _, d := range e.Devices {
		if err := unix.Access(d.Path, unix.W_OK); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fail(CodeDevice, fmt.Errorf("%s cannot be written: %w: run this as root", d.Path, err))
		}
	}
	return nil
}

// configured returns what the configuration says of a volume.
func (e *Enrollment) configured(t *target) *VolumeConfig {
	i := slices.IndexFunc(e.Config.Volumes, func(v VolumeConfig) bool {
		return v.Device == t.path || v.Device == "UUID="+t.uuid()
	})
	if i < 0 {
		return nil
	}
	return &e.Config.Volumes[i]
}

// withAdded returns the volumes of the configuration and the added ones. These
// were not needed to boot the machine so far: none of them keeps it from booting.
func (e *Enrollment) withAdded() []VolumeConfig {
	volumes := slices.Clone(e.Config.Volumes)
	for _, t := range e.targets {
		if e.configured(t) == nil {
			volumes = append(volumes, VolumeConfig{Device: "UUID=" + t.uuid(), Name: t.mapping(), Options: []string{optionNoFail}})
		}
	}
	return volumes
}

// completeAdding gets the secrets. Volumes that a boot received were counted
// long ago; what an interrupted addition left of them is in files alone.
func (e *Enrollment) completeAdding(ctx context.Context) error {
	err := e.complete(ctx)
	var refused *Failure
	if errors.As(err, &refused) && refused.Code == api.CodeEnrolled && e.allConfigured() {
		e.say("note: a boot has opened these volumes already: what is left is the initramfs")
		e.received = true
		return nil
	}
	return err
}

func (e *Enrollment) allConfigured() bool {
	return !slices.ContainsFunc(e.targets, func(t *target) bool { return e.configured(t) == nil })
}

func (e *Enrollment) unlessReceived(each func(context.Context, *target) error) func(context.Context, *target) error {
	return func(ctx context.Context, t *target) error {
		if e.received {
			return nil
		}
		return each(ctx, t)
	}
}

// commitAdding has the service count the volumes. It says nothing of the next
// boot yet: that one does not know them.
func (e *Enrollment) commitAdding(ctx context.Context) error {
	if e.received {
		return nil
	}
	response, err := e.sendCommit(ctx, forecast{})
	if err != nil {
		return err
	}
	return e.conclude(response, asThisBoot)
}

// configureAdded adds the volumes to the configuration.
func (e *Enrollment) configureAdded(context.Context) error {
	c := e.Config
	c.Volumes = e.withAdded()
	err := c.Write(e.ConfigPath)
	if errors.Is(err, ErrForeignConfig) {
		e.say("note: %s stays as it is: %v: add the volumes to it and make the initramfs again", e.ConfigPath, ErrForeignConfig)
		return nil
	}
	return err
}

// stage has the service told of the boots that can follow, of which the next knows
// the volumes. These are added without it: what keeps it from that is told alone.
// Where nothing made the files of the next boot, whoever does stages them.
func (e *Enrollment) stage(ctx context.Context) error {
	if e.Initramfs == nil && e.NextBoot.UKI == "" {
		return nil
	}
	foresight, err := e.Stage(ctx)
	if err != nil {
		e.say("note: the boots that can follow are not staged: %v: run keywright-unlock stage", err)
		return ctx.Err()
	}
	e.result.Boots = foresight.Boots
	return nil
}
