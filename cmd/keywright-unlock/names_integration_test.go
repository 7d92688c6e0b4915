//go:build integration

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"keywright.dev/unlock"
)

// childNames makes the test binary [namesComeLate].
const childNames = "KEYWRIGHT_UNLOCK_TEST_NAMES"

const (
	resolvConf = "/etc/resolv.conf"
	// nameServer is not the address that is asked where none is configured.
	nameServer = "127.0.0.2:53"
	namePeriod = time.Minute
	namePoll   = 100 * time.Millisecond
)

// TestNameServersThatComeLate has the client begin before DHCP told a name
// server, in a network of its own.
func TestNameServersThatComeLate(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = []string{childNames + "=1", "GODEBUG=netdns=go"} // as without cgo
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Regexp(t, `^lookup kw.test: .*\n.*: connect: connection refused\n$`, string(out))
}

// namesComeLate asks one server by name until its name is known.
func namesComeLate() {
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("none", "/etc", "tmpfs", 0, ""),
		os.WriteFile(resolvConf, nil, 0o600),
		loopbackUp(),
		serveNames(),
	); err != nil {
		fmt.Println("preparing:", err)
		os.Exit(1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), namePeriod)
	defer cancel()
	list, err := servers([]string{"https://kw.test:9"}, bootServer)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var unknown *net.DNSError
	if _, err = list[0].Challenge(ctx); !errors.As(err, &unknown) {
		fmt.Println("asking:", err)
		os.Exit(1)
	}
	fmt.Printf("lookup %s: %s\n", unknown.Name, unknown.Err)
	if err := os.WriteFile(resolvConf, []byte("nameserver 127.0.0.2\n"), 0o600); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for errors.As(err, &unknown) && ctx.Err() == nil {
		_ = unlock.SystemClock{}.Sleep(ctx, namePoll)
		_, err = list[0].Challenge(ctx)
	}
	fmt.Println(err)
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// serveNames answers that every name is this host, and has no IPv6.
func serveNames() error {
	conn, err := net.ListenPacket("udp", nameServer)
	if err != nil {
		return err
	}
	go func() {
		for {
			query := make([]byte, 512)
			n, from, err := conn.ReadFrom(query)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(answerName(query[:n]), from)
		}
	}()
	return nil
}

// answerName answers a query of one question (RFC 1035, section 4).
func answerName(query []byte) []byte {
	const header = 12
	end := header
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	question := query[header : end+5]
	answer := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
	if a := question[len(question)-3] == 1; a {
		answer[7] = 1
		answer = append(answer, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
	}
	return answer
}
