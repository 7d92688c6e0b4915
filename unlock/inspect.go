package unlock

import (
	"os"

	"keywright.dev/kms/exchange"
)

// BootState says how the running system got its volumes.
type BootState string

// The states of a boot.
const (
	BootReleased   BootState = "its volumes were opened with keys from the service"
	BootByOther    BootState = "its keys were given up: a passphrase opened its volumes, or it has none of ours"
	BootOpen       BootState = "nothing closed its exchange: the initramfs did not run keywright-unlock close"
	BootIsExtended BootState = "something else extended PCR 15"
)

// State reads how the running system got its volumes.
func (d RunDir) State(t ReleasePCR) (BootState, error) {
	value, err := t.PCR15()
	if err != nil {
		return "", fail(CodeTPM, err)
	}
	_, missing := os.Stat(d.path(receiptFile))
	switch {
	case value == [32]byte{}:
		return BootOpen, nil
	case value == exchange.Extend([32]byte{}, exchange.NoReleaseEvent()):
		return BootByOther, nil
	case missing == nil:
		return BootReleased, nil
	default:
		return BootIsExtended, nil
	}
}

// Inspected is a configured volume as it is found now.
type Inspected struct {
	Device, Name string
	ID           string // the service's; empty where it is not enrolled
	Slots        []int  // keyslots of ours
	Open, Root   bool
	Err          error // why its header cannot be read
}

// Inspect looks at the configured volumes.
func Inspect(configs []VolumeConfig, mapped []Device) []Inspected {
	list := make([]Inspected, 0, len(configs))
	for _, c := range configs {
		v, err := findVolume(c)
		found := Inspected{Device: c.Device, Name: c.Name, Err: err}
		if err == nil {
			found.ID, found.Slots = v.ID, v.Slots
			for _, d := range mapped {
				if opens(Volumes{v}, d) {
					found.Open, found.Root = true, d.Root
				}
			}
			_ = v.Device.Close()
		}
		list = append(list, found)
	}
	return list
}
