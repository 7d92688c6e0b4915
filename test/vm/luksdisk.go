package vm

import (
	"context"
	"crypto/aes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/crypto/xts"

	"keywright.dev/kms/secret"
	"keywright.dev/test/process"
)

const (
	// luksDataOffset is where cryptsetup puts the data by default, in bytes.
	luksDataOffset = 16 << 20
	// ivSector is what the plain64 tweak counts, whatever the sector size.
	ivSector      = 512
	volumeKeySize = 64 // AES-256-XTS
	// FileSystemUUID is fixed so that equal files give an equal file system.
	FileSystemUUID = "6b657977-7269-4768-8000-000000000001"
	mib            = 1 << 20
)

// LUKSDisk is a disk image to be made: LUKS2 over the whole of it, and in it
// ext4 with files. It is made without device-mapper and root's rights.
type LUKSDisk struct {
	Size       int64 // bytes; at least 32 MiB, a multiple of 1 MiB
	SectorSize int   // encryption sector, 512 or 4096; 0: 4096
	// Passphrase opens keyslot 0. Its argon2id is forced to cost little, since
	// under emulation the usual cost takes minutes.
	Passphrase secret.Bytes
	// Root is the folder whose content becomes that of the file system.
	Root string
}

// Write makes the image at path, replacing what was there.
func (d LUKSDisk) Write(ctx context.Context, path string) error {
	if err := d.write(ctx, path); err != nil {
		return fmt.Errorf("making the LUKS disk %s: %w", path, err)
	}
	return nil
}

func (d LUKSDisk) check() error {
	switch {
	case d.Size < 2*luksDataOffset || d.Size%mib != 0:
		return fmt.Errorf("its size is %d bytes, want at least 32 MiB and whole MiB", d.Size)
	case d.SectorSize != 512 && d.SectorSize != 4096:
		return fmt.Errorf("its sector size is %d, want 512 or 4096", d.SectorSize)
	case d.Passphrase.Len() == 0:
		return errors.New("it has no passphrase")
	case d.Root == "":
		return errors.New("it has no folder of files")
	}
	return nil
}

func (d LUKSDisk) write(ctx context.Context, path string) error {
	if d.SectorSize == 0 {
		d.SectorSize = 4096
	}
	if err := d.check(); err != nil {
		return err
	}
	volumeKey, err := secret.Random(rand.Reader, volumeKeySize)
	if err != nil {
		return err
	}
	defer volumeKey.Wipe()
	if err := createSparse(path, d.Size); err != nil {
		return err
	}
	if err := d.format(ctx, path, volumeKey); err != nil {
		return err
	}
	plaintext, clean, err := d.makeExt4(ctx, filepath.Dir(path))
	if err != nil {
		return err
	}
	defer clean()
	return d.encrypt(path, plaintext, volumeKey)
}

// format writes the LUKS2 header. Both secrets reach cryptsetup through pipes.
func (d LUKSDisk) format(ctx context.Context, path string, volumeKey secret.Bytes) error {
	keyPipe, err := pipeOf(volumeKey)
	if err != nil {
		return err
	}
	defer keyPipe.Close()
	passPipe, err := pipeOf(d.Passphrase)
	if err != nil {
		return err
	}
	defer passPipe.Close()
	cmd := exec.CommandContext(ctx, "/usr/sbin/cryptsetup", "luksFormat", "-q", "--type", "luks2",
		"--cipher", "aes-xts-plain64", "--key-size", fmt.Sprint(volumeKeySize*8),
		"--sector-size", fmt.Sprint(d.SectorSize), "--offset", fmt.Sprint(luksDataOffset/ivSector),
		"--pbkdf", "argon2id", "--pbkdf-memory", "32768", "--pbkdf-force-iterations", "4", "--pbkdf-parallel", "1",
		"--volume-key-file", "/proc/self/fd/3", "--key-file", "-", path)
	cmd.Stdin, cmd.ExtraFiles = passPipe, []*os.File{keyPipe}
	return process.Run(ctx, cmd)
}

// pipeOf returns the reading end of a pipe that holds the secret.
func pipeOf(s secret.Bytes) (*os.File, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	defer writer.Close()
	// Far below a pipe's buffer: the write does not wait for a reader.
	if _, err := writer.Write(s.Expose()); err != nil {
		return nil, errors.Join(fmt.Errorf("writing to a pipe: %w", err), reader.Close())
	}
	return reader, nil
}

// makeExt4 makes the file system's plain image in a file of dir.
func (d LUKSDisk) makeExt4(ctx context.Context, dir string) (path string, clean func(), err error) {
	f, err := os.CreateTemp(dir, "ext4-")
	if err != nil {
		return "", nil, err
	}
	clean = func() { _ = os.Remove(f.Name()) }
	if err := errors.Join(f.Truncate(d.Size-luksDataOffset), f.Close()); err != nil {
		clean()
		return "", nil, err
	}
	err = process.Run(ctx, exec.CommandContext(ctx, "/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", d.Root,
		"-U", FileSystemUUID, "-E", "hash_seed="+FileSystemUUID+",root_owner=0:0,nodiscard", "-m", "0", f.Name()))
	if err != nil {
		clean()
		return "", nil, err
	}
	return f.Name(), clean, nil
}

// encrypt writes the plain image into the data segment as dm-crypt would.
func (d LUKSDisk) encrypt(path, plaintext string, volumeKey secret.Bytes) error {
	cipher, err := xts.NewCipher(aes.NewCipher, volumeKey.Expose())
	if err != nil {
		return err
	}
	in, err := os.Open(plaintext)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := encryptSectors(io.NewOffsetWriter(out, luksDataOffset), in, cipher, d.SectorSize); err != nil {
		return err
	}
	return out.Close()
}

// encryptSectors encrypts in, whole MiB, with the tweak plain64.
func encryptSectors(out io.Writer, in io.Reader, cipher *xts.Cipher, sectorSize int) error {
	buffer := make([]byte, mib)
	for tweak := uint64(0); ; {
		_, err := io.ReadFull(in, buffer)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for at := 0; at < len(buffer); at += sectorSize {
			sector := buffer[at : at+sectorSize]
			cipher.Encrypt(sector, sector, tweak)
			tweak += uint64(sectorSize / ivSector)
		}
		if _, err := out.Write(buffer); err != nil {
			return err
		}
	}
}
