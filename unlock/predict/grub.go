package predict

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"keywright.dev/kms/claims"
	"keywright.dev/kms/eventlog"
)

// File is a file that GRUB reads.
type File interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// GRUB tells what follows from the files that GRUB will read.
type GRUB struct {
	// Log is the event log of a boot by GRUB on this machine. Its names tell
	// which files GRUB reads before a kernel.
	Log []byte
	// Open opens a file by the path that GRUB gave it, such as
	// "(hd0,gpt2)/grub/grub.cfg" or "/vmlinuz".
	Open func(path string) (File, error)

	// digests remembers those of files that several entries load, by claim and path.
	digests map[string]string
}

// Prediction is what follows from the files of one entry, or why that cannot be
// told.
type Prediction struct {
	Entry Entry
	Files claims.Set
	Err   error
}

// PredictAll is [GRUB.Predict] for each entry, in their order. Each file is read
// once.
func (g GRUB) PredictAll(entries []Entry) []Prediction {
	g.digests = make(map[string]string)
	list := make([]Prediction, 0, len(entries))
	for _, e := range entries {
		set, err := g.Predict(e)
		list = append(list, Prediction{e, set, err})
	}
	return list
}

// MaxLog bounds the event log that is read, in bytes.
const MaxLog = eventlog.MaxBytes

const (
	commandPCR = 8
	filePCR    = 9
)

// ByGRUB tells whether a boot's event log shows GRUB's commands.
func ByGRUB(log []byte) bool {
	events, err := eventlog.Parse(log)
	return err == nil && slices.ContainsFunc(events, func(e eventlog.Event) bool {
		return e.PCR == commandPCR && strings.HasPrefix(string(e.Data), "grub_cmd: ")
	})
}

// Predict returns what follows from the files of a boot of an entry: claims of
// kind [claims.Files].
func (g GRUB) Predict(e Entry) (claims.Set, error) {
	list, err := g.claims(e)
	if err != nil {
		return claims.Set{}, fmt.Errorf("predicting a boot by GRUB: %w", err)
	}
	return claims.New(claims.Files, list)
}

func (g GRUB) claims(e Entry) ([]claims.Claim, error) {
	events, err := eventlog.Parse(g.Log)
	if err != nil {
		return nil, fmt.Errorf("reading the event log of this boot: %w", err)
	}
	configuration, err := configuration(events)
	if err != nil {
		return nil, err
	}
	list, err := g.programs(events)
	if err != nil {
		return nil, err
	}
	kernel, err := g.kernel(e.Kernel)
	if err != nil {
		return nil, err
	}
	list = append(list, kernel...)
	list = append(list, claims.Claim{Name: claims.CommandLineText, Value: e.CommandLine})
	for _, path := range configuration {
		c := claims.Claim{Name: claims.LoaderEnvironment, Value: claims.Present}
		if !strings.HasSuffix(path, "/grubenv") {
			if c, err = g.file(claims.LoaderFile, path); err != nil {
				return nil, err
			}
		}
		list = append(list, c)
	}
	for _, path := range e.Initrds {
		initrd, err := g.file(claims.LoaderInitrd, path)
		if err != nil {
			return nil, err
		}
		list = append(list, initrd)
	}
	return list, nil
}

// configuration returns the paths of what GRUB reads before a kernel.
func configuration(events []eventlog.Event) ([]string, error) {
	var paths []string
	initrds := 0
	for _, e := range events {
		text := strings.TrimSuffix(string(e.Data), "\x00")
		switch e.PCR {
		case filePCR:
			paths = append(paths, text)
		case commandPCR:
			if files, ok := strings.CutPrefix(text, "grub_cmd: initrd "); ok {
				initrds = len(strings.Fields(files))
			}
		}
	}
	if initrds == 0 || len(paths) < 1+initrds {
		return nil, errors.New("this boot's event log does not show how GRUB loaded a kernel and an initrd")
	}
	return paths[:len(paths)-1-initrds], nil
}

// kernel names the kernel's file, and the program that firmware will measure.
func (g GRUB) kernel(path string) ([]claims.Claim, error) {
	f, err := g.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum, err := digestOf(f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	img, err := parsePE(f, f.Size())
	if err != nil {
		return nil, fmt.Errorf("the kernel %s: %w", path, err)
	}
	program, err := img.authenticode()
	if err != nil {
		return nil, fmt.Errorf("the kernel %s: %w", path, err)
	}
	return []claims.Claim{
		{Name: claims.KernelImage, Value: hex.EncodeToString(program[:])},
		{Name: claims.ImageSignature, Value: img.signature()},
		{Name: claims.LoaderKernel, Value: hex.EncodeToString(sum[:])},
	}, nil
}

func (g GRUB) file(name, path string) (claims.Claim, error) {
	return g.once(name, path, digestOf)
}

// once reads a file for a claim that several entries share.
func (g GRUB) once(name, path string, read func(File) ([sha256.Size]byte, error)) (claims.Claim, error) {
	key := name + " " + path
	if sum, known := g.digests[key]; known {
		return claims.Claim{Name: name, Value: sum}, nil
	}
	f, err := g.Open(path)
	if err != nil {
		return claims.Claim{}, err
	}
	defer f.Close()
	digest, err := read(f)
	if err != nil {
		return claims.Claim{}, fmt.Errorf("reading %s: %w", path, err)
	}
	sum := hex.EncodeToString(digest[:])
	if g.digests != nil {
		g.digests[key] = sum
	}
	return claims.Claim{Name: name, Value: sum}, nil
}

func digestOf(f File) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, f.Size())); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Mounted returns the places where a file may be that GRUB names by a path of
// its own: GRUB's devices are the machine's ESP, /boot and root file systems.
func Mounted(path string) []string {
	if strings.HasPrefix(path, "(") {
		_, path, _ = strings.Cut(path, ")")
	}
	if !strings.HasPrefix(path, "/") || slices.Contains(strings.Split(path, "/"), "..") {
		return nil
	}
	return []string{"/boot/efi" + path, "/efi" + path, "/boot" + path, path}
}
