package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"keywright.dev/unlock"
)

func status(ctx context.Context, h host, args []string) error {
	set := flags(h, "status")
	config := set.String("config", unlock.DefaultConfig, "`FILE` of the configuration")
	if err := parse(set, args); err != nil {
		return err
	}
	c, err := enrolledConfig(*config)
	if err != nil {
		return err
	}
	fmt.Fprintf(h.stdout, "machine    %s\n", c.Machine)
	fmt.Fprintf(h.stdout, "servers    %s\n", strings.Join(c.Servers, " "))
	for _, key := range c.ServiceKeys {
		fmt.Fprintf(h.stdout, "pinned     %s\n", key)
	}
	mapped, err := h.mapped()
	if err != nil {
		return err
	}
	for _, v := range unlock.Inspect(c.Volumes, mapped) {
		printVolume(h.stdout, v)
	}
	identity, closeTPM, err := h.identity(ctx, c, 0)
	if err != nil {
		return err
	}
	defer closeTPM()
	state, err := h.run.State(identity)
	if err != nil {
		return err
	}
	fmt.Fprintf(h.stdout, "this boot  %s\n", state)
	err = tellNextBoot(ctx, h, c, identity, "")
	var no verdict
	if errors.As(err, &no) {
		return nil // it is shown; preflight has the exit code
	}
	return err
}

func printVolume(w io.Writer, v unlock.Inspected) {
	where := "closed"
	if v.Open {
		where = "open"
	}
	if v.Root {
		where += ", root"
	}
	switch {
	case v.Err != nil:
		fmt.Fprintf(w, "volume     %s on %s: %v\n", v.Name, v.Device, v.Err)
	case v.ID == "":
		fmt.Fprintf(w, "volume     %s on %s: not enrolled\n", v.Name, v.Device)
	default:
		fmt.Fprintf(w, "volume     %s on %s: %s, volume/%s, keyslots of ours %v\n", v.Name, v.Device, where, v.ID, v.Slots)
	}
}
