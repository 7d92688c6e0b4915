package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"time"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock"
	"keywright.dev/unlock/initramfs"
)

// host is the machine that the program runs on: what a test stands in for.
type host struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	openTPM        func(path string) (*tpm.Device, error)
	unseal         func(ctx context.Context, v unlock.Volume, key secret.Bytes) (secret.Bytes, error)
	opener         unlock.Opener
	clock          unlock.Clock
	announce       func(line string)
	question       func(question string)
	consoles       func() []string // but standard error's
	harden         func() error
	reboot         func() error
	run            unlock.RunDir
	esp            []string // where an EFI system partition may be mounted
	grub           string   // GRUB's configuration
	// mapped returns the open mappings, ready why the next initramfs would not ask.
	mapped func() ([]unlock.Device, error)
	ready  func() error
	// initramfs has the client taken into the initramfs, noInitramfs out of it; nil
	// where this system makes its own otherwise.
	initramfs   func(ctx context.Context) error
	noInitramfs func(ctx context.Context) error
	// ahead makes in a folder what asAhead will put in the place of each initramfs, and
	// returns where it is by the path of that; nil with initramfs.
	ahead            func(ctx context.Context, folder string) (map[string]string, error)
	asAhead          func(ctx context.Context) error
	openByPassphrase func(ctx context.Context, v unlock.Volume, passphrase secret.Bytes) error
	prompt           func(ctx context.Context, device string) (secret.Bytes, error)
	tools            initramfs.Tools
}

// system returns the machine as it is.
func system() host {
	var tools initramfs.Tools
	h := host{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		openTPM: tpm.Open, unseal: unlock.Unseal, opener: unlock.Disks{}, clock: unlock.SystemClock{},
		announce: unlock.Consoles, question: unlock.Question, consoles: unlock.OtherConsoles, harden: unlock.Harden, reboot: unlock.Reboot,
		run: unlock.DefaultRunDir, esp: unlock.ESPFolders(), grub: unlock.DefaultGRUB,
		mapped: unlock.CryptDevices, ready: tools.Ready,
		initramfs: initramfsTools(tools, installScripts(tools, os.Stderr)), noInitramfs: initramfsTools(tools, tools.Remove), openByPassphrase: unlock.OpenByPassphrase, prompt: prompt, tools: tools,
	}
	if tools.Present() {
		h.ahead, h.asAhead = tools.Ahead, tools.UpdateAsAhead
	}
	return h
}

// enrolledConfig reads the configuration that enroll wrote, and tells what to do
// where there is none.
func enrolledConfig(path string) (*unlock.Config, error) {
	c, err := unlock.LoadConfig(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("this machine is not enrolled: %w: run keywright-unlock enroll first", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: run this as root", err)
	default:
		return c, err
	}
}

// nextBoot returns where the files of the next boot are; uki may name its image.
func (h host) nextBoot(c *unlock.Config, uki string) unlock.NextBoot {
	return unlock.NextBoot{UKI: uki, Folders: h.esp, EventLog: c.EventLogPath(), GRUB: h.grub}
}

// protect hardens the process, or says why it is not hardened.
func (h host) protect() {
	if err := h.harden(); err != nil {
		fmt.Fprintf(h.stderr, "keywright-unlock: warning: %v\n", err)
	}
}

const tpmPoll = 100 * time.Millisecond

// identity opens the TPM of the configured machine, for which it waits while its
// driver is loading, and makes its keys.
func (h host) identity(ctx context.Context, c *unlock.Config, patience time.Duration) (*tpm.Identity, func(), error) {
	device, err := h.awaitTPM(ctx, c.TPMPath(), patience)
	if err != nil {
		return nil, nil, err
	}
	identity, err := identityOf(device, c)
	if err != nil {
		return nil, nil, errors.Join(err, device.Close())
	}
	return identity, func() { _ = errors.Join(identity.Close(), device.Close()) }, nil
}

func (h host) awaitTPM(ctx context.Context, path string, patience time.Duration) (*tpm.Device, error) {
	deadline := h.clock.Now().Add(patience)
	for {
		device, err := h.openTPM(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) || h.clock.Now().After(deadline) {
			return device, err
		}
		if stopped := h.clock.Sleep(ctx, tpmPoll); stopped != nil {
			return nil, err
		}
	}
}

func identityOf(device *tpm.Device, c *unlock.Config) (*tpm.Identity, error) {
	template := exchange.EKTemplate(c.EKTemplate)
	if template == "" {
		var err error
		if template, err = device.ChooseTemplate(); err != nil {
			return nil, err
		}
	}
	return device.Identity(template, c.Machine)
}

// servers returns a client for each server of a configuration, in the form that
// its user has for it.
func servers[S any](urls []string, form func(host string, client *api.GuestClient) S) ([]S, error) {
	list := make([]S, 0, len(urls))
	for _, text := range urls {
		client, err := api.NewGuestClient(text, nil)
		if err != nil {
			return nil, err
		}
		list = append(list, form(hostOf(text), client))
	}
	return list, nil
}

// hostOf returns host and port of a URL that was checked before.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	return u.Host
}
