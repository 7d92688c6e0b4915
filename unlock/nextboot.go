package unlock

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keywright.dev/kms/exchange"
	"keywright.dev/unlock/luks"
	"keywright.dev/unlock/predict"
)

// NextBoot tells where the files of the next boot are.
type NextBoot struct {
	// UKI is the unified kernel image of the next boot; empty: the only one
	// below Folders.
	UKI string
	// Folders are where the EFI system partition may be mounted.
	Folders []string
	// EventLog is the path of this boot's, and GRUB that of its configuration:
	// where GRUB started this boot, it is taken to start the next, with the first
	// entry of its menu. Empty: it is not looked for.
	EventLog, GRUB string
	// Instead has files that are about to take the place of others, by the paths of
	// those: the boots with them come first, and then those that there are now.
	Instead map[string]string
}

// DefaultGRUB is where distributions keep GRUB's configuration.
const DefaultGRUB = "/boot/grub/grub.cfg"

// ESPFolders returns where systems mount their EFI system partition.
func ESPFolders() []string { return []string{"/efi", "/boot/efi", "/boot"} }

// asThisBoot stands for a prediction that there is none of.
const asThisBoot = "this boot's measurement"

// forecast is what the files of the next boot lead to.
type forecast struct {
	claims []byte // canonical, of kind files
	from   string // for people
	// found tells that nobody named the file: it may be another boot's.
	found bool
	// unknown is why there are no claims.
	unknown error
}

// predict computes the claims of the next boot. Only an image that was named
// must have some.
func (n NextBoot) predict() (forecast, error) {
	if n.UKI != "" {
		claims, err := predictUKI(n.UKI)
		return forecast{claims: claims, from: n.UKI}, err
	}
	if log, ok := n.grubLog(); ok {
		return n.predictMenu(log, 1)[0], nil
	}
	images, err := n.find()
	if err != nil || len(images) == 0 {
		return forecast{from: asThisBoot}, err
	}
	if len(images) > 1 {
		return forecast{from: asThisBoot, unknown: fmt.Errorf("there are %d images, name that of the next boot with --uki: %q", len(images), images)}, nil
	}
	claims, err := predictUKI(images[0])
	if err != nil {
		return forecast{from: asThisBoot, unknown: err}, nil // some EFI program, not a kernel image
	}
	return forecast{claims: claims, from: images[0], found: true}, nil
}

// predictAll computes the claims of every boot that can follow, first of the one
// that follows where nobody chooses, each once. What cannot be foretold is left
// out behind the first.
func (n NextBoot) predictAll() ([]forecast, error) {
	if log, ok := n.grubLog(); ok && n.UKI == "" {
		return n.predictBoth(log), nil
	}
	if len(n.Instead) > 0 {
		return []forecast{{from: asThisBoot, unknown: errors.New("GRUB did not start this boot, so that nothing tells what comes of another initramfs")}}, nil
	}
	first, err := n.predict()
	if err != nil || first.unknown == nil {
		return []forecast{first}, err
	}
	images, err := n.find()
	if err != nil || len(images) < 2 {
		return []forecast{first}, err
	}
	list := []forecast{first}
	for _, image := range images {
		if claims, err := predictUKI(image); err == nil {
			list = append(list, forecast{claims: claims, from: image, found: true})
		}
	}
	return list[:min(len(list), exchange.MaxBoots)], nil
}

// predictBoth computes what GRUB's menu leads to, where files are about to take the
// place of others with them and without.
func (n NextBoot) predictBoth(log []byte) []forecast {
	list := n.predictMenu(log, exchange.MaxBoots)
	if len(n.Instead) == 0 || list[0].unknown != nil {
		return list
	}
	n.Instead = nil
	for _, now := range n.predictMenu(log, exchange.MaxBoots) {
		if now.unknown == nil && len(list) < exchange.MaxBoots && !foretold(list, now) {
			list = append(list, now)
		}
	}
	return list
}

func foretold(list []forecast, next forecast) bool {
	return slices.ContainsFunc(list, func(f forecast) bool { return bytes.Equal(f.claims, next.claims) })
}

// predictMenu computes what the first entries of GRUB's menu lead to, each boot
// once; at most so many. A menu that cannot be foretold is no reason not to enrol.
func (n NextBoot) predictMenu(log []byte, most int) []forecast {
	entries, err := menuOf(n.GRUB)
	if err != nil {
		return []forecast{{from: asThisBoot, unknown: err}}
	}
	if most == 1 {
		entries = entries[:1] // hashing every initrd takes its time
	}
	var list []forecast
	for i, p := range (predict.GRUB{Log: log, Open: n.open}).PredictAll(entries) {
		next := forecast{from: fmt.Sprintf("GRUB's entry %q", p.Entry.Title), found: true}
		switch {
		case p.Err == nil:
			next.claims = p.Files.Marshal()
		case i == 0:
			next = forecast{from: asThisBoot, unknown: p.Err}
		default:
			continue
		}
		if !foretold(list, next) && len(list) < most {
			list = append(list, next)
		}
	}
	return list
}

// grubLog returns this boot's event log where GRUB started it.
func (n NextBoot) grubLog() (log []byte, ok bool) {
	if n.EventLog == "" || n.GRUB == "" {
		return nil, false
	}
	log, err := readBounded(n.EventLog, predict.MaxLog)
	return log, err == nil && predict.ByGRUB(log)
}

// menuOf returns the entries of GRUB's menu that start the system; not those into
// its maintenance.
func menuOf(menu string) ([]predict.Entry, error) {
	f, err := os.Open(menu)
	if err != nil {
		return nil, fmt.Errorf("predicting the next boot: %w", err)
	}
	defer f.Close()
	entries, err := predict.Entries(f)
	if err != nil {
		return nil, fmt.Errorf("predicting the next boot from %s: %w", menu, err)
	}
	entries = slices.DeleteFunc(entries, predict.Entry.Maintenance)
	if len(entries) == 0 {
		return nil, fmt.Errorf("predicting the next boot: no entry of %s starts Linux with an initrd and without variables", menu)
	}
	return entries, nil
}

// sizedFile is a file of the running system.
type sizedFile struct {
	*os.File
	size int64
}

func (f sizedFile) Size() int64 { return f.size }

// open opens a file by the path that GRUB has for it, or what is about to take its
// place.
func (n NextBoot) open(path string) (predict.File, error) {
	for _, place := range predict.Mounted(path) {
		f, err := os.Open(cmp.Or(n.Instead[place], place))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err != nil || !info.Mode().IsRegular() {
			return nil, errors.Join(fmt.Errorf("%s is no file", place), err, f.Close())
		}
		return sizedFile{f, info.Size()}, nil
	}
	return nil, fmt.Errorf("finding what GRUB reads as %q: it is on none of the mounted file systems", path)
}

func predictUKI(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("predicting the next boot: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("predicting the next boot: %w", err)
	}
	set, err := predict.UKI(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("predicting the next boot from %s: %w", path, err)
	}
	return set.Marshal(), nil
}

// find returns the images that firmware or systemd-boot would start: those in
// EFI/Linux, else the one in the fallback place (UEFI, section 3.5.1.1).
func (n NextBoot) find() ([]string, error) {
	for _, folder := range n.Folders {
		for _, place := range []string{"EFI/Linux/*.efi", "EFI/BOOT/BOOTX64.EFI"} {
			images, err := filepath.Glob(filepath.Join(folder, place))
			if err != nil || len(images) > 0 {
				return images, err
			}
		}
	}
	return nil, nil
}

// CryptDevices returns the devices below the LUKS2 mappings of the running
// system, and which of them its root stands on.
func CryptDevices() ([]Device, error) {
	const mapper = blockClass + "/dm-*/dm/uuid"
	files, err := filepath.Glob(mapper)
	if err != nil {
		return nil, err
	}
	root := make(map[string]bool)
	if number, err := DeviceNumber("/"); err == nil {
		if err := DefaultSysfs.stack(number, root); err != nil {
			return nil, err
		}
	}
	var devices []Device
	for _, file := range files {
		uuid, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("listing the open volumes: %w", err)
		}
		if !strings.HasPrefix(string(uuid), "CRYPT-LUKS2-") {
			continue
		}
		d, err := cryptDevice(filepath.Dir(filepath.Dir(file)), root)
		if err != nil {
			return nil, fmt.Errorf("listing the open volumes: %w", err)
		}
		devices = append(devices, d)
	}
	return devices, nil
}

// cryptDevice reads one mapping's folder in sysfs.
func cryptDevice(folder string, root map[string]bool) (Device, error) {
	name, err := os.ReadFile(filepath.Join(folder, "dm", "name"))
	if err != nil {
		return Device{}, err
	}
	number, err := os.ReadFile(filepath.Join(folder, "dev"))
	if err != nil {
		return Device{}, err
	}
	device, err := standsOn(folder, strings.TrimSpace(string(name)))
	if err != nil {
		return Device{}, err
	}
	d := Device{
		Path: filepath.Join("/dev", device), Name: strings.TrimSpace(string(name)),
		Root: root[strings.TrimSpace(string(number))],
	}
	// What has another shape is refused for its header, which says why.
	if table, err := luks.ReadTable(d.Name); err == nil {
		d.Options = optionNames(table.Options())
	}
	return d, nil
}
