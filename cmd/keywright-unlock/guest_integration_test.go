//go:build integration

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/secret"
	"keywright.dev/test/swtpm"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// Environment variables of the child that a test starts of itself.
const (
	childTPM = "KEYWRIGHT_UNLOCK_TEST_TPM" // socket of the TPM
	childRun = "KEYWRIGHT_UNLOCK_TEST_RUN" // instead of /run/keywright
	childESP = "KEYWRIGHT_UNLOCK_TEST_ESP" // instead of /efi and others
	childMap = "KEYWRIGHT_UNLOCK_TEST_MAP" // file that is mapped by its name, as the root

	childGRUB = "KEYWRIGHT_UNLOCK_TEST_GRUB" // instead of GRUB's configuration
)

// TestMain makes the test binary the program itself where a test starts it as a
// child: with a software TPM and without device-mapper.
func TestMain(m *testing.M) {
	if os.Getenv(childNames) != "" {
		namesComeLate()
		return
	}
	socket := os.Getenv(childTPM)
	if socket == "" {
		os.Exit(m.Run())
	}
	h := system()
	h.openTPM = oneTPM(socket)
	h.opener = new(recorder)
	h.ahead, h.initramfs, h.noInitramfs, h.grub = nil, nil, nil, os.Getenv(childGRUB)
	if initrd := os.Getenv(childInitrd); initrd != "" {
		h.initramfs = func(context.Context) error { return makeInitrd(initrd) }
	}
	h.mapped, h.ready = mappedHere, func() error { return nil }
	h.reboot = func() error { return errors.New("a test does not reboot") }
	h.run, h.esp = unlock.RunDir(os.Getenv(childRun)), []string{os.Getenv(childESP)}
	os.Exit(start(h))
}

// mappedHere stands in for device-mapper's folders in sysfs.
func mappedHere() ([]unlock.Device, error) {
	path := os.Getenv(childMap)
	if path == "" {
		return nil, nil
	}
	return []unlock.Device{{Path: path, Name: filepath.Base(path), Root: true}}, nil
}

const passphrase = "installer's passphrase"

// guest is a machine with a software TPM that booted a recorded boot, and LUKS
// volumes on plain files.
type guest struct {
	t       *testing.T
	tpm     *swtpm.TPM
	socket  string
	dir     string
	log     []byte
	volumes []string
	// root is the volume that the root stands on once it runs, grub its boot
	// loader's configuration; empty: none.
	root, grub string
	// initrd is what stands in for the initramfs; empty: none is made.
	initrd string
	conns  []net.Conn // of this process to the TPM
	// turn is held while a client has the TPM, up to the removal of what it left.
	turn sync.Mutex
}

func newGuest(t *testing.T, volumes int) *guest {
	t.Helper()
	g := &guest{t: t, tpm: swtpm.New(t), dir: t.TempDir()}
	g.socket = g.serveTPM()
	g.boot("ovmf-uki")
	for i := range volumes {
		g.volumes = append(g.volumes, g.format("volume"+string(rune('0'+i))))
	}
	return g
}

// boot resets the machine and replays a recorded boot.
func (g *guest) boot(name string) {
	g.t.Helper()
	var err error
	g.log, err = os.ReadFile(filepath.Join("..", "..", "kms", "attest", "testdata", "eventlogs", name+".bin"))
	require.NoError(g.t, err)
	g.turn.Lock()
	defer g.turn.Unlock()
	require.NoError(g.t, g.tpm.Reset())
	require.NoError(g.t, g.tpm.Replay(g.log))
	require.NoError(g.t, os.WriteFile(g.path("log"), g.log, 0o600))
}

func (g *guest) path(name string) string { return filepath.Join(g.dir, name) }

func (g *guest) format(name string) string {
	g.t.Helper()
	path := g.path(name)
	require.NoError(g.t, os.WriteFile(path, nil, 0o600))
	require.NoError(g.t, os.Truncate(path, 32<<20))
	cryptsetup(g.t, passphrase, "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", path)
	return path
}

func cryptsetup(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("cryptsetup", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%v: %s", args, out)
	return string(out)
}

// child is the program as a process of its own.
func (g *guest) child(args ...string) *exec.Cmd {
	g.t.Helper()
	self, err := os.Executable()
	require.NoError(g.t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), childTPM + "=" + g.socket, childRun + "=" + g.path("run"), childESP + "=" + g.path("esp"), childMap + "=" + g.root, childGRUB + "=" + g.grub, childInitrd + "=" + g.initrd}
	return cmd
}

// enrollArgs is an enrolment of all volumes, with the passphrase on descriptor 3.
func (g *guest) enrollArgs(s *service) []string {
	args := []string{"enroll", "--config", g.config(), "--server", s.url, "--service-key", s.pin(), "--name", "web-17", "--passphrase-fd", "3"}
	for _, v := range g.volumes {
		args = append(args, "--device", v)
	}
	return args
}

// config returns the path of enroll's configuration, whose first version says
// where the recorded log is.
func (g *guest) config() string {
	path := g.path("unlock.toml")
	if _, err := os.Stat(path); err != nil {
		c := unlock.Config{Servers: []string{"https://replaced.example"}, ServiceKeys: []string{"sha256:" + strings.Repeat("00", 32)}, EventLog: g.path("log")}
		require.NoError(g.t, c.Write(path))
	}
	return path
}

// bootConfig returns the path of a configuration with the volumes' paths, for
// files have no UUID that could be looked up.
func (g *guest) bootConfig(servers []string, pins ...string) string {
	c := unlock.Config{Servers: servers, ServiceKeys: pins, Machine: g.machine(), EventLog: g.path("log")}
	for _, v := range g.volumes {
		c.Volumes = append(c.Volumes, unlock.VolumeConfig{Device: v, Name: filepath.Base(v)})
	}
	path := g.path("boot.toml")
	require.NoError(g.t, c.Write(path))
	return path
}

// enroll runs a whole enrolment and returns what it printed.
func (g *guest) enroll(s *service, more ...string) string {
	g.t.Helper()
	cmd := g.child(append(g.enrollArgs(s), more...)...)
	give(g.t, cmd, passphrase)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(g.t, cmd.Run(), out.String())
	return out.String()
}

// give puts text behind descriptor 3 of a child.
func give(t *testing.T, cmd *exec.Cmd, text string) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	_, err = w.WriteString(text)
	require.NoError(t, errors.Join(err, w.Close()))
	cmd.ExtraFiles = []*os.File{r}
	t.Cleanup(func() { _ = r.Close() })
}

// machine returns the machine's id.
func (g *guest) machine() string {
	g.t.Helper()
	g.turn.Lock()
	defer g.turn.Unlock()
	device := tpm.New(g.tpm)
	template, err := device.ChooseTemplate()
	require.NoError(g.t, err)
	identity, err := device.Identity(template, "")
	require.NoError(g.t, err)
	defer func() { assert.NoError(g.t, identity.Close()) }()
	return identity.EK().MachineID()
}

// header returns a validated header.
func header(t *testing.T, path string) *luks.Volume {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	h, err := luks.ReadDevice(f)
	require.NoError(t, err)
	v, err := h.Validate()
	require.NoError(t, err)
	return v
}

// recorder stands in for device-mapper, which needs a kernel of its own: it
// remembers keys that open, and in which order.
type recorder struct {
	events []string
	keys   [][]byte // copies, to look for where they must not be
	fail   string   // mapping that does not open
}

func (*recorder) Ready(context.Context, unlock.Volume) error { return nil }

func (r *recorder) unseal(ctx context.Context, v unlock.Volume, key secret.Bytes) (secret.Bytes, error) {
	r.keys = append(r.keys, bytes.Clone(key.Expose()))
	return unlock.Unseal(ctx, v, key)
}

func (r *recorder) Open(_ context.Context, v unlock.Volume, volumeKey secret.Bytes) (*luks.Mapping, error) {
	if v.Config.Name == r.fail {
		return nil, errors.New("no such luck")
	}
	r.keys = append(r.keys, bytes.Clone(volumeKey.Expose()))
	r.events = append(r.events, "open "+v.Config.Name)
	return &luks.Mapping{Path: "/dev/mapper/" + v.Config.Name, Table: luks.Table{Name: v.Config.Name, Number: "254:0"}}, nil
}

func (r *recorder) Close(_ context.Context, name string) error {
	r.events = append(r.events, "close "+name)
	return nil
}

// serveTPM passes commands on to the TPM from a socket, for one client at a
// time, and does as the kernel's resource manager when a client is gone: it
// removes what that left.
func (g *guest) serveTPM() string {
	g.t.Helper()
	socket := filepath.Join(shortDir(g.t), "tpm")
	l := loopback(g.t, "unix", socket)
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			g.turn.Lock()
			pass(conn, g.tpm)
			flush(g.t, g.tpm)
			g.turn.Unlock()
		}
	})
	g.t.Cleanup(func() { assert.NoError(g.t, l.Close()); clients.Wait() })
	return socket
}

func pass(conn net.Conn, target *swtpm.TPM) {
	defer conn.Close()
	for {
		command, err := readTPM(conn)
		if err != nil {
			return
		}
		response, err := target.Send(command)
		if err != nil {
			return
		}
		if _, err := conn.Write(response); err != nil {
			return
		}
	}
}

// readTPM reads one command or response, whose length stands at byte 2.
func readTPM(r io.Reader) ([]byte, error) {
	head := make([]byte, 10)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	rest := make([]byte, max(binary.BigEndian.Uint32(head[2:]), 10)-10)
	_, err := io.ReadFull(r, rest)
	return append(head, rest...), err
}

func flush(t *testing.T, target *swtpm.TPM) {
	for _, first := range []uint32{0x80000000, 0x02000000} {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 32}.Execute(target)
		if err != nil {
			return // the TPM is gone with the test
		}
		handles, err := rsp.CapabilityData.Data.Handles()
		assert.NoError(t, err)
		for _, h := range handles.Handle {
			_, err := tpm2.FlushContext{FlushHandle: h}.Execute(target)
			assert.NoError(t, err)
		}
	}
}

// socketTPM is a connection to serveTPM.
type socketTPM struct{ net.Conn }

func (s socketTPM) Send(command []byte) ([]byte, error) {
	if _, err := s.Write(command); err != nil {
		return nil, err
	}
	return readTPM(s)
}

// oneTPM opens the TPM as a process does that has it once at a time: what is served
// to one client at a time is closed when it is opened again.
func oneTPM(socket string) func(string) (*tpm.Device, error) {
	var last net.Conn
	return func(string) (*tpm.Device, error) {
		if last != nil {
			_ = last.Close()
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return nil, err
		}
		last = conn
		return tpm.New(socketTPM{conn}), nil
	}
}
