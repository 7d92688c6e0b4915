package luks

import (
	"fmt"
	"os"

	luksgo "github.com/anatol/luks.go"
	"golang.org/x/sys/unix"
)

// openCopy lets luks.go read a memory copy of the device.
func (v *Volume) openCopy(area []byte, offset uint64) (luksgo.Device, error) {
	memory, err := v.memoryCopy(area, offset)
	if err != nil {
		return nil, fmt.Errorf("copying the header to memory: %w", err)
	}
	defer memory.Close()
	device, err := luksgo.Open(fmt.Sprintf("/proc/self/fd/%d", memory.Fd()))
	if err != nil {
		return nil, fmt.Errorf("opening the copy of the header in memory: %w", err)
	}
	return device, nil
}

// memoryCopy returns a sealed file in memory, all that luks.go gets to see of the
// device: the header that was validated, at the place of the first copy, and the
// area of a keyslot. It has the device's size, as a hole, since luks.go reckons
// with it where a segment is dynamic.
func (v *Volume) memoryCopy(area []byte, offset uint64) (*os.File, error) {
	fd, err := unix.MemfdCreate("luks-header", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	memory := os.NewFile(uintptr(fd), "luks-header")
	if err := v.fill(memory, area, offset); err != nil {
		_ = memory.Close()
		return nil, err
	}
	return memory, nil
}

func (v *Volume) fill(memory *os.File, area []byte, offset uint64) error {
	if err := memory.Truncate(int64(v.header.deviceSize)); err != nil {
		return err
	}
	if _, err := memory.WriteAt(v.header.chosen.asPrimary(), 0); err != nil {
		return err
	}
	if _, err := memory.WriteAt(area, int64(offset)); err != nil {
		return err
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	_, err := unix.FcntlInt(memory.Fd(), unix.F_ADD_SEALS, seals)
	return os.NewSyscallError("sealing", err)
}
