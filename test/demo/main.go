// Command demo tells how a virtual machine unlocks its own encrypted disk, and
// who does not get its key: with real firmware, a real kernel, a software TPM
// and Keywright's programs as they are shipped. `make demo` runs it.
//
// It leaves nothing behind, however it ends. When a step fails, it prints what
// the machine's console showed last and exits with 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"keywright.dev/test/vm"
)

func main() {
	bin := flag.String("bin", "bin", "`folder` of keywright and keywright-unlock")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, *bin)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string) (err error) {
	// Short, since the path of a unix socket has a limit.
	dir, err := os.MkdirTemp("", "kw-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	accel, err := vm.Accel(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("A virtual machine unlocks its own encrypted disk (UEFI, unified kernel image, vTPM; QEMU with %s)\n", accel.Accelerator)
	ctx, cancel := context.WithCancel(ctx)
	// What still runs must have ended before its folder goes.
	t := &tale{narrator: narrator{out: os.Stdout, now: time.Now}, bin: bin, dir: dir}
	defer t.end()
	defer cancel()
	began := time.Now()
	if err := t.tell(ctx); err != nil {
		return err
	}
	fmt.Printf("\nAll of it in %s. Nothing is left running, and no file.\n", seconds(time.Since(began)))
	return nil
}
