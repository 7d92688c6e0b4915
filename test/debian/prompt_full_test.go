//go:build vm && full

package debian_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/test/debian"
	"keywright.dev/test/e2e"
	"keywright.dev/test/vm"
)

const (
	question = "Please unlock disk root: "
	// standing ends every line while the question stands.
	standing = "; passphrase: "
	opened   = "keywright: opened"
	// lateDHCP is when DHCP answers, after power on.
	lateDHCP = 90 * time.Second
)

// promptSite is a site whose guest asks two servers, of which one is never of use,
// and has two consoles.
type promptSite struct {
	*site
	gateway *gateway
	silent  *silent
}

// TestPromptBesideTheClient takes one Debian server through what may be wrong
// while it boots, one boot after the other.
func TestPromptBesideTheClient(t *testing.T) {
	s := &promptSite{site: newSite(t), silent: newSilent(t)}
	s.gateway = newGateway(t, s.service.Port())
	t.Cleanup(func() { s.service.Stop() })
	s.install(t)
	t.Run("approval while the prompt stands", s.approvedAtThePrompt)
	t.Run("guest clock ten years off, one of two servers hangs", s.unattended)
	t.Run("DHCP answers late, the first response is lost", s.lateNetwork)
	t.Run("service starts late, a wrong passphrase is typed", s.lateService)
	t.Run("no link, a wrong passphrase, then the right one on the other console", s.byPassphrase)
	t.Run("static address, another measurement is approved at the prompt", s.anotherMeasurement)
}

// install enrols the server, whose service is reached through the gateway.
func (s *promptSite) install(t *testing.T) {
	g := s.boot(t, s.machine)
	require.NoError(t, g.Answer(t.Context(), question, debian.Passphrase()))
	require.NoError(t, g.Login(t.Context()))
	installClient(t, g)
	// What the screen shows stays there.
	command(t, g, "systemctl mask getty@tty1 && sed -i 's/console=ttyS0/console=tty0 console=ttyS0/' /etc/default/grub && update-grub")
	config := fmt.Sprintf("# Written by keywright-unlock enroll, which replaces it. Remove this line to keep your changes.\nservers = [%q, %q]\nservice_keys = [%q]\n",
		s.silent.url, s.gateway.url, s.service.Key)
	command(t, g, "mkdir -p /etc/keywright && printf %s '"+config+"' >/etc/keywright/unlock.toml")
	command(t, g, typed+"keywright-unlock enroll --name web-17 --passphrase-fd 0")
	powerOff(t, g)
}

// boot powers the server on.
func (s *promptSite) boot(t *testing.T, m debian.Machine) *debian.Guest {
	t.Helper()
	return boot(t, m, portOf(t, s.gateway.url), portOf(t, s.silent.url))
}

// goesOn waits for a system that its keys opened, and holds that it is whole.
func (s *promptSite) goesOn(t *testing.T, g *debian.Guest) {
	t.Helper()
	_, err := g.Expect(t.Context(), opened)
	require.NoError(t, err)
	require.NoError(t, g.Login(t.Context()))
	assert.NotEqual(t, closed(), pcr15(t, g))
	whole(t, g)
}

// whole holds that nothing failed, and that nothing of the initramfs goes on beside
// the agent.
func whole(t *testing.T, g *debian.Guest) {
	t.Helper()
	assert.Empty(t, command(t, g, "systemctl --failed --no-legend"))
	assert.Empty(t, command(t, g, "pidof keywright-unlock askpass ipconfig | tr ' ' '\\n' | grep -vx \"$(systemctl show --property MainPID --value "+agent+")\" || true"))
	assert.NotEqual(t, "1", command(t, g, "cut -f 1 /proc/sys/kernel/printk"), "the kernel speaks on the console")
}

func closed() string {
	value := exchange.Extend([32]byte{}, exchange.NoReleaseEvent())
	return hex.EncodeToString(value[:])
}

func pcr15(t *testing.T, g *debian.Guest) string {
	t.Helper()
	return strings.ToLower(strings.TrimSpace(command(t, g, "cat /sys/class/tpm/tpm0/pcr-sha256/15")))
}

// prompted waits until the question stands, and behind it a line that has why.
func prompted(t *testing.T, g *debian.Guest, why string) {
	t.Helper()
	require.NoError(t, g.Prompt(t.Context(), question))
	require.NoError(t, g.Prompt(t.Context(), why))
	require.NoError(t, g.Prompt(t.Context(), standing))
}

func (s *promptSite) approvedAtThePrompt(t *testing.T) {
	g := s.boot(t, s.machine)
	prompted(t, g, ": machine_pending; next try ")
	line := `keywright KW-1207 refused by ` + strings.TrimPrefix(s.gateway.url, "https://") + ` \(machine [0-9a-f]{8}\): machine_pending; next try \d+ s`
	assert.Regexp(t, line+"\n", g.Log(), "before the question")
	assert.Regexp(t, line+standing, g.Log(), "while it stands")

	ek, err := s.machine.TPM.EK()
	require.NoError(t, err)
	s.operate(t, "machine", "approve", "web-17", "--ek-hash", ek.MachineID())
	s.goesOn(t, g)
	screen := command(t, g, "cat /dev/vcs1")
	assert.Contains(t, screen, strings.TrimSpace(question))
	assert.Contains(t, screen, strings.TrimSpace(standing))
	assert.Contains(t, screen, opened)
	powerOff(t, g)
}

func (s *promptSite) unattended(t *testing.T) {
	s.silent.hangs.Store(true)
	defer s.silent.hangs.Store(false)
	m := s.machine
	m.Clock = time.Date(2016, 1, 1, 0, 0, 0, 0, time.UTC)
	g := s.boot(t, m)
	s.goesOn(t, g)
	assert.NotContains(t, g.Log(), question)
	assert.Positive(t, s.silent.held.Load())
	assert.Contains(t, command(t, g, "dmesg"), "setting system clock to 2016-01-01")
	powerOff(t, g)
}

func (s *promptSite) lateNetwork(t *testing.T) {
	m := s.machine
	m.Network = vm.NetworkSilent
	answers := time.After(lateDHCP)
	g := s.boot(t, m)
	prompted(t, g, "KW-1501 unavailable")
	s.gateway.lose.Store(1)
	<-answers
	require.NoError(t, g.SetNetwork(t.Context(), vm.NetworkUp))
	s.goesOn(t, g)
	assert.Negative(t, s.gateway.lose.Load(), "a release was lost, and another came")
	powerOff(t, g)
}

func (s *promptSite) lateService(t *testing.T) {
	s.service.Stop()
	g := s.boot(t, s.machine)
	require.NoError(t, g.Answer(t.Context(), question, secret.Copy([]byte("not this one"))))
	require.NoError(t, g.Prompt(t.Context(), "by passphrase: "))
	// It is asked again, and the client goes on.
	prompted(t, g, "KW-1501 unavailable")
	var err error
	s.service, err = e2e.ServiceConfig{
		Program: s.machine.Dir + "/keywright", Dir: s.machine.Dir, Port: s.service.Port(),
	}.Start(context.WithoutCancel(t.Context()))
	require.NoError(t, err)
	s.goesOn(t, g)
	powerOff(t, g)
}

func (s *promptSite) byPassphrase(t *testing.T) {
	m := s.machine
	m.Network = vm.NetworkUnplugged
	g := s.boot(t, m)
	require.NoError(t, g.Answer(t.Context(), question, secret.Copy([]byte("not this one"))))
	prompted(t, g, "KW-1501 unavailable")
	require.NoError(t, g.Press(t.Context(), append(debian.Passphrase().Expose(), '\n')))
	require.NoError(t, g.Login(t.Context()))
	assert.NotContains(t, g.Log(), opened)
	assert.Equal(t, closed(), pcr15(t, g))
	whole(t, g)
	command(t, g, "sed -i 's/console=tty0/ip=10.0.2.77::10.0.2.1:255.255.255.0:debian::off console=tty0/' /etc/default/grub && update-grub")
	powerOff(t, g)
}

// anotherMeasurement boots with a static address on the kernel's command line.
func (s *promptSite) anotherMeasurement(t *testing.T) {
	g := s.boot(t, s.machine)
	prompted(t, g, ": measurement; next try ")
	assert.Regexp(t, `keywright KW-1203 refused by .*: measurement; next try \d+ s; passphrase: `, g.Log())
	measurement := s.refusedFor(t, "measurement")
	s.operate(t, "machine", "approve", "web-17", "--measurement", measurement)
	require.NoError(t, g.Prompt(t.Context(), ": platform; next try "))
	s.operate(t, "machine", "approve", "web-17", "--measurement", measurement, "--platform", s.refusedFor(t, "platform"))
	s.goesOn(t, g)
	assert.Contains(t, command(t, g, "cat /run/net-*.conf"), "IPV4ADDR='10.0.2.77'", "not DHCP's")
	powerOff(t, g)
}

// refusedFor returns the digest of what the last boot had and was refused for.
func (s *promptSite) refusedFor(t *testing.T, fact string) string {
	t.Helper()
	var explained api.Explanation
	require.NoError(t, json.Unmarshal([]byte(s.operate(t, "explain", "machine/web-17", "--format", "json")), &explained))
	require.Equal(t, fact, explained.Last.Code)
	for _, f := range explained.Last.Facts {
		if f.Name == fact {
			return f.Is
		}
	}
	require.Fail(t, "the entry does not tell what was refused", "%+v", explained.Last)
	return ""
}

func (s *promptSite) operate(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.service.Operate(t.Context(), args...)
	require.NoError(t, err)
	return out
}
