// Command keywright is the key service for virtual machines and its operators'
// command line; see package cli.
package main

import (
	"context"
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

func main() { os.Exit(run()) }

func run() int {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// After the first signal the second one is the system's: it ends at once.
	context.AfterFunc(ctx, stop)
	p := &cli.Program{Version: version, Out: os.Stdout, Err: os.Stderr, Env: os.Getenv, Clock: time.Now}
	return p.Run(ctx, os.Args[1:])
}
