package unlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// Volume is a volume of an enrolled machine: its header was read once and
// validated.
type Volume struct {
	Config VolumeConfig
	ID     string // the service's
	// Slots are the keyslots for boots that our tokens are assigned to.
	Slots []int
	// Identity is the identity digest of LUKS; of a header under reencryption, that of
	// [exchange.UnderReencryption].
	Identity [32]byte
	// LUKS is nil where Under is not, unless all data is under the new volume key.
	LUKS *luks.Volume
	// Under is a header under reencryption; nil of any other.
	Under *luks.Under
	// Device is the open file that the header was read from.
	Device *os.File
}

// Volumes are the volumes of one boot.
type Volumes []Volume

// Close closes the devices. The mappings stay.
func (vs Volumes) Close() error {
	var errs []error
	for _, v := range vs {
		errs = append(errs, v.Device.Close())
	}
	return errors.Join(errs...)
}

const (
	devicePoll = 100 * time.Millisecond
	// deviceNotice is how long a device may take before the consoles say that it
	// is waited for.
	deviceNotice = 5 * time.Second
)

// Search is how a boot looks for its devices. All fields are required but
// Deadline.
type Search struct {
	Clock Clock
	// Deadline ends the waiting; the zero time never does.
	Deadline time.Time
	// Announce shows one line on the consoles.
	Announce func(line string)
}

// Volumes waits for the devices of a configuration and reads their headers.
// Devices that are not there or cannot be read at the deadline, headers that are
// refused, and a machine that is not enrolled are a [*Failure]. Volumes that the
// machine boots without are left out where they fail, which the consoles say.
func (s Search) Volumes(ctx context.Context, configs []VolumeConfig) (Volumes, error) {
	if len(configs) == 0 {
		return nil, fail(CodeDevice, errors.New("the configuration names no volume"))
	}
	list, err := s.search(ctx, configs)
	var found Volumes
	for _, v := range list {
		if v != nil {
			found = append(found, *v)
		}
	}
	switch {
	case err != nil:
	case len(found) == 0:
		err = fail(CodeDevice, errors.New("no volume of the configuration is there"))
	default:
		err = found.enrolled()
	}
	if err != nil {
		return nil, errors.Join(err, found.Close())
	}
	return found, nil
}

// enrolled demands a token of ours on every volume.
func (vs Volumes) enrolled() error {
	with := 0
	for _, v := range vs {
		if v.ID != "" {
			with++
		}
	}
	for _, v := range vs {
		switch {
		case v.ID != "":
		case with == 0:
			return fail(CodeNotEnrolled, errors.New("no volume is enrolled: open them by passphrase and run keywright-unlock enroll"))
		default:
			return fail(CodeNotEnrolled, fmt.Errorf("%s is not enrolled, but others are: run keywright-unlock enroll with all volumes", v.Config.Device))
		}
	}
	return nil
}

// await waits until the device is there and can be read. It says so once.
func (s Search) await(ctx context.Context, c VolumeConfig) (Volume, error) {
	notice, said := s.Clock.Now().Add(deviceNotice), false
	for {
		v, err := findVolume(c)
		var final *Failure
		if err == nil || errors.As(err, &final) {
			return v, err
		}
		now := s.Clock.Now()
		if !s.Deadline.IsZero() && now.After(s.Deadline) {
			return Volume{}, fail(CodeDevice, err)
		}
		if !said && now.After(notice) {
			s.Announce(printable(fmt.Sprintf("keywright: waiting for %s: %v", c.Device, err)))
			said = true
		}
		if stopped := s.Clock.Sleep(ctx, devicePoll); stopped != nil {
			return Volume{}, fail(CodeDevice, err)
		}
	}
}

// findVolume looks for a volume once. What waiting cannot help is a [*Failure];
// other errors may pass: drivers show devices before they can be read.
func findVolume(c VolumeConfig) (Volume, error) {
	path := c.Device
	if uuid, ok := c.UUID(); ok {
		var err error
		if path, err = deviceByUUID(uuid); err != nil {
			return Volume{}, err
		}
	}
	device, err := os.Open(path)
	if err != nil {
		return Volume{}, fmt.Errorf("opening a volume's device: %w", err)
	}
	v, err := readVolume(device)
	if err != nil {
		return Volume{}, errors.Join(err, device.Close())
	}
	v.Config = c
	return v, nil
}

// readVolume reads and validates the header and looks for our tokens.
func readVolume(device *os.File) (Volume, error) {
	header, err := luks.ReadDevice(device)
	if err != nil {
		err = fmt.Errorf("reading the header of %s: %w", device.Name(), err)
		if final(err) {
			err = fail(CodeDevice, err)
		}
		return Volume{}, err
	}
	v, err := bound(device, header)
	return v, wrap(CodeDevice, err)
}

// final tells whether a header that cannot be read will stay so: a device that
// ends within it may only have begun to exist.
func final(err error) bool {
	var refusal *luks.Refusal
	return errors.As(err, &refusal) && refusal.Code != luks.CodeTruncated
}

// bound validates a header and finds the volume that our tokens bind it to.
func bound(device *os.File, header *luks.Header) (Volume, error) {
	if header.Reencrypting() {
		return boundUnder(device, header)
	}
	validated, err := header.Validate()
	if err != nil {
		return Volume{}, fmt.Errorf("reading the header of %s: %w", device.Name(), err)
	}
	v := Volume{LUKS: validated, Device: device}
	if v.Identity, err = validated.Identity().Digest(); err != nil {
		return Volume{}, err
	}
	if err := v.bind(validated.OwnTokens()); err != nil {
		return Volume{}, err
	}
	v.Slots = validated.OwnSlots(v.ID)
	// Before anything is asked: what a boot is released is released once.
	for _, slot := range v.Slots {
		if err := validated.Openable(slot); err != nil {
			return Volume{}, fmt.Errorf("reading the header of %s: %w", device.Name(), err)
		}
	}
	return v, nil
}

// bind finds the volume's id in our tokens.
func (v *Volume) bind(tokens []luks.OwnToken) error {
	for _, token := range tokens {
		switch {
		case len(token.Keyslots) == 0: // an enrolment that was interrupted
		case token.Purpose != luks.PurposeBoot: // for people
		case v.ID == "":
			v.ID = token.Volume
		case v.ID != token.Volume:
			return fmt.Errorf("%s is enrolled twice, as volume/%s and volume/%s: run keywright-unlock enroll again", v.Device.Name(), v.ID, token.Volume)
		}
	}
	return nil
}

const blockClass = "/sys/class/block"

// deviceByUUID returns the one block device with a LUKS header of that UUID.
func deviceByUUID(uuid string) (string, error) {
	entries, err := os.ReadDir(blockClass)
	if err != nil {
		return "", fmt.Errorf("listing block devices: %w", err)
	}
	var found []string
	for _, e := range entries {
		if hasUUID(filepath.Join("/dev", e.Name()), uuid) {
			found = append(found, e.Name())
		}
	}
	switch top := topmost(found, holders); len(top) {
	case 0:
		return "", fmt.Errorf("no block device has the LUKS UUID %s: %w", uuid, fs.ErrNotExist)
	case 1:
		return filepath.Join("/dev", top[0]), nil
	default:
		return "", fmt.Errorf("the LUKS UUID %s is on %q: remove all but one, or name the device by its path", uuid, top)
	}
}

// topmost leaves out what another of the devices stands on: the members of a
// RAID and the paths of a multipath device show its header too.
func topmost(names []string, holders func(name string) []string) []string {
	var top []string
	for _, name := range names {
		held := func(holder string) bool { return slices.Contains(names, holder) }
		if !slices.ContainsFunc(holders(name), held) {
			top = append(top, name)
		}
	}
	return top
}

// holders returns what stands on a block device.
func holders(name string) []string {
	entries, err := os.ReadDir(filepath.Join(blockClass, name, "holders"))
	if err != nil {
		return nil // a partition that is gone, or none that says so
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func hasUUID(path, uuid string) bool {
	device, err := os.Open(path)
	if err != nil {
		return false
	}
	defer device.Close()
	header, err := luks.ReadDevice(device)
	return err == nil && header.UUID == uuid
}

// Unseal returns the volume key that a released key opens in the keyslots that
// our tokens name.
func Unseal(ctx context.Context, v Volume, key secret.Bytes) (secret.Bytes, error) {
	if v.LUKS == nil {
		return unsealUnder(ctx, v, key)
	}
	return v.LUKS.UnsealAny(ctx, v.Slots, key)
}

// Disks opens volumes through device-mapper.
type Disks struct{}

// Ready implements [Opener].
func (Disks) Ready(ctx context.Context, v Volume) error {
	if v.LUKS == nil {
		return v.Under.Ready(ctx, v.Config.Name)
	}
	return v.LUKS.Ready(ctx, v.Config.Name)
}

// Open opens the volume's validated header over its device, and looks at the
// finished mapping through its node, as what mounts it will.
func (Disks) Open(ctx context.Context, v Volume, volumeKey secret.Bytes) (*luks.Mapping, error) {
	options := v.Config.options()
	if v.LUKS == nil {
		return openUnder(ctx, v, volumeKey, options)
	}
	mapping, err := v.LUKS.Open(ctx, volumeKey, v.Config.Name, options)
	if err != nil {
		return nil, err
	}
	table, err := luks.ReadTableOf(mapping.Path)
	if err == nil {
		err = v.LUKS.Check(table)
	}
	if err != nil {
		return nil, errors.Join(err, luks.Discard(ctx, v.Config.Name))
	}
	return mapping, nil
}

// Close closes a mapping.
func (Disks) Close(ctx context.Context, name string) error { return luks.Close(ctx, name) }

func (v *VolumeConfig) options() luks.Options {
	return luks.Options{
		Discards: slices.Contains(v.Options, optionDiscard),
		ReadOnly: slices.Contains(v.Options, optionReadOnly),
	}
}

// optionNames are options as a configuration has them.
func optionNames(o luks.Options) []string {
	var names []string
	if o.Discards {
		names = append(names, optionDiscard)
	}
	if o.ReadOnly {
		names = append(names, optionReadOnly)
	}
	return names
}

// OpenByPassphrase opens a volume as the distribution does, with a passphrase
// that somebody typed.
func OpenByPassphrase(ctx context.Context, v Volume, passphrase secret.Bytes) error {
	return luks.Cryptsetup{}.Open(ctx, v.Device.Name(), v.Config.Name, v.Config.options(), passphrase)
}
