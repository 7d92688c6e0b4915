package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/api"
	"keywright.dev/unlock"
)

const (
	// rekeyPatience is how long the agent keeps secrets while no service answers.
	rekeyPatience = 5 * time.Minute
	// bootRekeyTimeout bounds what a boot that has its volumes open does about rekeys.
	bootRekeyTimeout = 20 * time.Second
)

// agent waits for orders in the running system.
func agent(ctx context.Context, h host, args []string) error {
	set := flags(h, "agent")
	config := set.String("config", unlock.DefaultConfig, "`FILE` of the configuration")
	if err := parse(set, args); err != nil {
		return err
	}
	if _, err := enrolledConfig(*config); err != nil {
		return err
	}
	h.protect()
	w := &waiting{host: h, path: *config}
	defer w.close()
	return (&unlock.Agent{Orders: w.orders, Clock: h.clock, Random: rand.Float64, Log: w.log}).Run(ctx)
}

// waiting is an agent's view of its configuration, whose clients it keeps while
// that names the same servers.
type waiting struct {
	host    host
	path    string
	urls    []string
	clients []peer
	machine string
}

// peer is a client and what people call it.
type peer struct {
	host   string
	client *api.GuestClient
}

func newPeer(host string, client *api.GuestClient) peer { return peer{host, client} }

func (w *waiting) log(line string) { fmt.Fprintln(w.host.stdout, "keywright-unlock: "+line) }

func (w *waiting) close() {
	for _, s := range w.clients {
		s.client.Close()
	}
}

// orders reads the configuration anew.
func (w *waiting) orders() (*unlock.Orders, error) {
	c, err := unlock.LoadConfig(w.path)
	if err != nil {
		return nil, err
	}
	if w.clients == nil || !slices.Equal(w.urls, c.Servers) {
		w.close()
		if w.clients, err = servers(c.Servers, newPeer); err != nil {
			return nil, err
		}
		w.urls = c.Servers
	}
	if c.Machine != "" {
		w.machine = c.Machine
	} else if w.machine == "" {
		if w.machine, err = w.host.machineID(c); err != nil {
			return nil, err
		}
	}
	pins, err := c.Pins()
	if err != nil {
		return nil, err
	}
	known := &unlock.Orders{Machine: w.machine, Volumes: c.Volumes, Pins: pins, Repin: w.host.run.Repin}
	for _, s := range w.clients {
		known.Servers = append(known.Servers, unlock.OrderServer{Host: s.host, OrderService: s.client})
	}
	known.Begin = func(ctx context.Context, told int) (func(context.Context, unlock.Volume) (bool, error), func(), error) {
		identity, closeTPM, err := w.host.identity(ctx, c, 0)
		if err != nil {
			return nil, nil, unlock.TPMFailure(err)
		}
		r, err := w.host.rekeyer(c, identity, unlock.From(w.clients, told))
		if err != nil {
			closeTPM()
			return nil, nil, err
		}
		r.Patience, r.Out = rekeyPatience, w.host.stdout
		return r.Carry, closeTPM, nil
	}
	return known, nil
}

// machineID asks the TPM where the configuration does not name the machine.
func (h host) machineID(c *unlock.Config) (string, error) {
	identity, closeTPM, err := h.identity(context.Background(), c, 0)
	if err != nil {
		return "", unlock.TPMFailure(err)
	}
	defer closeTPM()
	return identity.EK().MachineID(), nil
}

// rekeyer returns what carries out rekeys; where to say something is left open.
func (h host) rekeyer(c *unlock.Config, identity *tpm.Identity, to []peer) (*unlock.Rekeyer, error) {
	pins, err := c.Pins()
	if err != nil {
		return nil, err
	}
	r := &unlock.Rekeyer{
		TPM: identity, EventLog: c.EventLogPath(), Pins: pins, RunDir: h.run, Clock: h.clock, Random: rand.Float64, Out: io.Discard,
	}
	for _, s := range to {
		r.Servers = append(r.Servers, unlock.RekeyServer{Host: s.host, RekeyService: s.client})
	}
	return r, nil
}

// rekeyDelivered goes on with rekeys whose secrets came with a boot's release, once
// the volumes are open. What fails is the running system's or the next boot's to
// finish: it is a line on the consoles, and never harms the boot.
func (h host) rekeyDelivered(ctx context.Context, c *unlock.Config, identity *tpm.Identity, delivered []unlock.Delivered) {
	if len(delivered) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, bootRekeyTimeout)
	defer cancel()
	r, err := h.bootRekeyer(c, identity)
	for _, d := range delivered {
		if err == nil {
			err = r.GoOn(ctx, d.Volume, &d.Secret)
		}
		if err != nil {
			h.announce(unlock.Line(fmt.Errorf("left for later: %w", err)))
			return
		}
		h.announce("keywright: rekeyed " + d.Volume.Device.Name())
	}
}

func (h host) bootRekeyer(c *unlock.Config, identity *tpm.Identity) (*unlock.Rekeyer, error) {
	to, err := servers(c.Servers, newPeer)
	if err != nil {
		return nil, err
	}
	r, err := h.rekeyer(c, identity, to)
	if err == nil {
		r.Patience = bootRekeyTimeout
	}
	return r, err
}
