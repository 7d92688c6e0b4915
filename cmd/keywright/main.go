// Command keywright is the key service for virtual machines and its operators'
// command line; see package cli.
package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"keywright.dev/cmd/keywright/cli"
)

// version is stamped by the linker, see the Makefile.
var version = "devel"

// memoryLimit makes the collector work harder before the service's memory
// reaches what its limits promise. GOMEMLIMIT overrules it.
const memoryLimit = 384 << 20

// gcPercent lets the heap grow to five times what is in use before it is
// collected: the service holds little and lets go of a hundred kilobytes with
// each request, so that collecting is otherwise a tenth of its work. The memory
// limit comes first. GOGC overrules it.
const gcPercent = 400

func main() { os.Exit(run()) }

func run() int {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// After the first signal the second one is the system's: it ends at once.
	context.AfterFunc(ctx, stop)
	p := &cli.Program{
		Version: version, In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Getenv, Clock: time.Now,
		Resolver: net.DefaultResolver, Addresses: addresses,
	}
	return p.Run(ctx, os.Args[1:])
}

// addresses returns those of this host.
func addresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("reading the addresses of this host: %w", err)
	}
	var own []netip.Addr
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, prefix.Addr())
		}
	}
	return own, nil
}
