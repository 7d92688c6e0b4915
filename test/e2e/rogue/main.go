// Command rogue is what a thief runs in a system that he got into: it asks for
// the machine's keys as keywright-unlock does, but takes no notice of PCR 15.
// Only the service can refuse it.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/api"
	"keywright.dev/unlock"
)

func main() {
	if err := ask(context.Background()); err != nil {
		fmt.Println("rogue: got nothing:", err)
		os.Exit(1)
	}
	fmt.Println("rogue: got the keys")
}

func ask(ctx context.Context) error {
	config, err := unlock.LoadConfig(unlock.DefaultConfig)
	if err != nil {
		return err
	}
	clock := unlock.SystemClock{}
	search := unlock.Search{Clock: clock, Deadline: clock.Now(), Announce: func(string) {}}
	volumes, err := search.Volumes(ctx, config.Volumes)
	if err != nil {
		return err
	}
	defer volumes.Close()
	identity, err := openTPM(config)
	if err != nil {
		return err
	}
	pins, err := config.Pins()
	if err != nil {
		return err
	}
	server, err := dial(config.Servers[0])
	if err != nil {
		return err
	}
	return (&unlock.Boot{
		TPM: liar{identity}, EventLog: config.EventLogPath(), Servers: []unlock.Server{server}, Pins: pins,
		Volumes: volumes, Unseal: unlock.Unseal, Opener: careless{}, Clock: clock, Deadline: clock.Now(),
		Random: func() float64 { return 0 }, Announce: func(string) {}, Keep: unlock.RunDir(os.TempDir()),
		Reboot: func() error { return errors.New("a thief does not reboot") },
	}).Run(ctx)
}

// careless asks for the keys of volumes that are open already.
type careless struct{ unlock.Disks }

func (careless) Ready(context.Context, unlock.Volume) error { return nil }

// liar says that nothing was extended; what it quotes is what the TPM has.
type liar struct{ *tpm.Identity }

func (liar) PCR15() ([32]byte, error) { return [32]byte{}, nil }

func openTPM(config *unlock.Config) (*tpm.Identity, error) {
	device, err := tpm.Open(config.TPMPath())
	if err != nil {
		return nil, err
	}
	template, err := device.ChooseTemplate()
	if err != nil {
		return nil, err
	}
	return device.Identity(template, "")
}

func dial(address string) (unlock.Server, error) {
	u, err := url.Parse(address)
	if err != nil {
		return unlock.Server{}, err
	}
	client, err := api.NewGuestClient(address, nil)
	return unlock.Server{Host: u.Host, Service: client}, err
}
