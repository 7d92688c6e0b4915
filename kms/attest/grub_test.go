package attest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/claims"
)

func loaderClaims(set claims.Set) []string {
	return slices.DeleteFunc(claimsOf(set), func(line string) bool { return !strings.HasPrefix(line, "loader.") })
}

func TestClaimsOfABootByGRUB(t *testing.T) {
	boot := appraise(t, readLog(t, "grub-a"))
	assert.Equal(t, claims.Staged, boot.Tier)
	assert.Equal(t, []string{
		"loader.cmdline /vmlinuz-6.1.0-56-cloud-amd64 root=<1> ro console=ttyS0 panic=-1 quiet",
		"loader.kernel 51349501",
	}, loaderClaims(boot.Measurement))
	assert.Equal(t, []string{
		"loader.variable 1 /dev/mapper/root",
		"loader.file d01cfbf3", "loader.file 5137257c", "loader.file 32fc7f5d", "loader.file 1b766f38", "loader.file 46f888c5",
		"loader.file ebc8d852", "loader.environment present", "loader.environment present",
		"loader.initrd 247c0d0b",
	}, loaderClaims(boot.Platform))
	assert.Len(t, boot.State.Values(claims.LoaderCommand), 56)
	assert.Len(t, boot.State.Values(claims.LoaderEnvironment), 2)
	assert.Len(t, boot.Measurement.Values(claims.BootApplication), 4)
	assert.Len(t, boot.Measurement.Values(claims.ShimMOK), 3)
	assert.Len(t, boot.Measurement.Values(claims.SecureBootAuthority), 3)
	assert.Empty(t, boot.Findings())
}

// What was changed between recorded boots, and the claims that move.
func TestWhatMovesTheClaimsOfGRUB(t *testing.T) {
	const kernel, file = claims.BootApplication, claims.LoaderFile
	base := appraise(t, readLog(t, "grub-a"))
	for name, want := range map[string]struct{ measurement, platform []string }{
		"grub-b":            {nil, []string{claims.DiskLayout, file, file}}, // another disk, other UUIDs
		"grub-comment":      {nil, []string{file}},
		"grub-timeout":      {nil, []string{file}},
		"grub-newinitrd":    {nil, []string{claims.LoaderInitrd}},
		"grub-cmdline":      {[]string{claims.LoaderCommandLine}, []string{file}},
		"grub-oldkernel":    {[]string{kernel, kernel, claims.LoaderCommandLine, claims.LoaderKernel}, []string{file}},
		"grub-reboot-entry": {[]string{kernel, kernel, claims.LoaderCommandLine, claims.LoaderKernel}, nil}, // another environment block, too
	} {
		t.Run(name, func(t *testing.T) {
			boot := appraise(t, readLog(t, name))
			assert.Equal(t, want.measurement, namesOf(claims.Diff(base.Measurement, boot.Measurement)))
			assert.Equal(t, want.platform, namesOf(claims.Diff(base.Platform, boot.Platform)))
		})
	}
}

func TestStockCommandsHaveRoles(t *testing.T) {
	boot := chosen(t, "echo Loading",
		"linux /vmlinuz root=UUID=11111111-2222-3333-4444-555555555555 resume=UUID=66666666-2222-3333-4444-555555555555 rd.luks.uuid=luks-66666666-2222-3333-4444-555555555555 ro",
		"echo Loading", "initrd /ucode /initrd")
	assert.Equal(t, []string{"/vmlinuz root=<1> resume=<2> rd.luks.uuid=luks-<3> ro"}, boot.Measurement.Values(claims.LoaderCommandLine))
	assert.Equal(t, []string{
		"1 UUID=11111111-2222-3333-4444-555555555555", "2 UUID=66666666-2222-3333-4444-555555555555", "3 66666666-2222-3333-4444-555555555555",
	}, boot.Platform.Values(claims.LoaderVariable))
	assert.Equal(t, []string{digestText("microcode"), digestText("an initrd")}, boot.Platform.Values(claims.LoaderInitrd))
	assert.Equal(t, []string{digestText("a kernel")}, boot.Measurement.Values(claims.LoaderKernel))
	assert.Equal(t, []string{digestText("the configuration")}, boot.Platform.Values(claims.LoaderFile))
}

func digestText(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestQuotedArgumentsAreUnderstood(t *testing.T) {
	g := newGRUB()
	g.configure()
	g.measure(8, "grub_cmd: ", `linux /vmlinuz a b=c"d\ e`)
	g.read("/vmlinuz")
	g.loaded.kernel = "a kernel"
	g.measure(8, "kernel_cmdline: ", `/vmlinuz "a b=c\"d\\ e"`)
	g.run("initrd /initrd")
	boot := appraise(t, g.log(t))
	assert.Equal(t, []string{`/vmlinuz "a b=c\"d\\ e"`}, boot.Measurement.Values(claims.LoaderCommandLine))
}

func TestTheEnvironmentBlockMayBeMissing(t *testing.T) {
	g := newGRUB()
	delete(g.disk, "/grubenv")
	g.configure()
	g.run(stockLinux)
	g.run("initrd /initrd")
	boot := appraise(t, g.log(t))
	assert.Empty(t, boot.Findings())
	assert.False(t, boot.Platform.Has(claims.LoaderEnvironment))
}

// Attack 32: what follows the test for the environment block tells whether it was
// read, and nothing else does.
func TestAttack32EnvironmentBlockReadInAnotherWay(t *testing.T) {
	for _, between := range []string{"echo", "set have_grubenv=false"} {
		g := newGRUB()
		for _, command := range []string{"configfile /grub.cfg", "[ -s /grubenv ]", between, "load_env", stockLinux, "initrd /initrd"} {
			g.run(command)
		}
		boot := appraise(t, g.log(t))
		require.Len(t, boot.Measurement.Values(claims.LoaderFinding), 1)
		assert.Contains(t, boot.Measurement.Values(claims.LoaderFinding)[0], "as the stock configuration does")
	}
}

// Attack 32: the labels of a recorded attack from GRUB's console, as they were
// and forged so that the good command line seems to be the one that was used.
func TestAttack32ForgedLabelsSayNothing(t *testing.T) {
	good := appraise(t, readLog(t, "grub-a"))
	honest, forged := appraise(t, readLog(t, "grub-console-attack")), appraise(t, readLog(t, "grub-forged-labels"))
	assert.Empty(t, claims.Diff(honest.Measurement, forged.Measurement))
	assert.Equal(t, []string{"command 41 is none that a boot by the menu needs"}, forged.Measurement.Values(claims.LoaderFinding))
	assert.NotEmpty(t, forged.Findings())
	assert.False(t, forged.Measurement.Equal(good.Measurement))
	for c := range forged.Measurement.All() {
		assert.NotContains(t, c.Value, "vmlinuz")
	}
}

// Attack 32: a recorded boot with another command line, told in the words of the
// approved one. No quote covers them, so that the log replays.
func TestAttack32EditedBootInTheWordsOfTheGoodOne(t *testing.T) {
	_, good := splitLog(t, readLog(t, "grub-a"))
	told := 0
	forged := edited(t, "grub-cmdline", func(events []logEvent) []logEvent {
		require.Len(t, events, len(good))
		for i := range events {
			if (events[i].pcr == 8 || events[i].pcr == 9) && string(events[i].data) != string(good[i].data) {
				events[i].data = good[i].data
				told++
			}
		}
		return events
	})
	require.Positive(t, told)
	boot, approved := appraise(t, forged), appraise(t, readLog(t, "grub-a"))
	assert.Equal(t, replay(t, readLog(t, "grub-cmdline")), pcrsOf(t, boot))
	assert.False(t, boot.Measurement.Equal(approved.Measurement))
	assert.NotEmpty(t, boot.Findings())
	assert.Empty(t, boot.Measurement.Values(claims.LoaderCommandLine), "what was said counts for nothing")
}

// Attack 32: what somebody at GRUB's console, or with a configuration of their
// own, could do so that another kernel, command line or initrd passes for the
// approved ones. Each leaves a finding, which is part of the measurement.
func TestAttack32OnlyTheStockOrderHasRoles(t *testing.T) {
	for name, c := range map[string]struct {
		finding  string
		commands []string
	}{
		"command named like the command line": {"is none that a boot by the menu needs",
			[]string{"/vmlinuz root=/dev/mapper/root ro quiet", "linux /vmlinuz init=/evil", "initrd /initrd"}},
		"kernel that is missing, then a name": {"something was done after the kernel", []string{"linux /missing good", "/missing good", "linux /evil", "initrd /initrd"}},
		"two kernels":                         {"something was done after the kernel", []string{stockLinux, "initrd /initrd", "linux /evil", "initrd /initrd"}},
		"another loader before":               {"is none that a boot", []string{"chainloader /evil", stockLinux, "initrd /initrd"}},
		"another loader behind":               {"something was done after the kernel", []string{stockLinux, "initrd /initrd", "linux16 /evil"}},
		"boot by hand":                        {"something was done after the kernel", []string{stockLinux, "initrd /initrd", "boot"}},
		"file read behind":                    {"something was done after the kernel", []string{stockLinux, "initrd /missing", "[ -s /initrd ]"}},
		"initrd twice":                        {"initrds were loaded twice", []string{stockLinux, "initrd /initrd", "initrd /evilinitrd"}},
		"no initrd":                           {"no initrd was loaded", []string{stockLinux}},
		"initrd inside another":               {"no plain path", []string{stockLinux, "initrd newc:init:/initrd"}},
		"root that needs no initrd":           {"could mount the root", []string{"linux /vmlinuz root=/dev/vda1", "initrd /broken"}},
		"root by partition":                   {"could mount the root", []string{"linux /vmlinuz root=PARTUUID=11111111-2222-3333-4444-555555555555", "initrd /broken"}},
		"second root that needs no initrd":    {"could mount the root", []string{"linux /vmlinuz root=/dev/mapper/root root=/dev/vda1", "initrd /broken"}},
		"number of a machine in the open":     {"the character <", []string{"linux /vmlinuz root=<1>", "initrd /initrd"}},
		"kernel that cannot be loaded":        {"is not its command line", []string{"linux /broken good", "initrd /initrd"}},
		"command named like another line":     {"is not its command line", []string{"linux /broken good", "/vmlinuz other", "initrd /initrd"}},
		"kernel named like a command":         {"is not its command line", []string{"linux echo x", "echo x", "initrd /initrd"}},
		"nothing loaded":                      {"no command linux", []string{"set root=hd0"}},
		"command line of other than ASCII":    {"printable ASCII", []string{"linux /vmlinuz ä", "initrd /initrd"}},
		"name that begins like a good one":    {"is none that a boot", []string{"insmodx evil", stockLinux, "initrd /initrd"}},
		"environment block read once more":    {"as the stock configuration does", []string{"load_env", stockLinux, "initrd /initrd"}},
		"environment block tested once more":  {"as the stock configuration does", []string{"[ -s /grubenv ]", stockLinux, "initrd /initrd"}},
	} {
		t.Run(name, func(t *testing.T) {
			boot := chosen(t, c.commands...)
			findings := boot.Measurement.Values(claims.LoaderFinding)
			require.Len(t, findings, 1)
			assert.Contains(t, findings[0], c.finding)
			assert.Empty(t, boot.Measurement.Values(claims.LoaderKernel))
			assert.NotEmpty(t, boot.Measurement.Values(claims.LoaderCommand), "all of it is part of the measurement")
			assert.NotEmpty(t, boot.Findings())
		})
	}
}

// Attack 32: an initrd of somebody's own runs as root, and measures behind what
// GRUB did: the good files once more, so that they are the last.
func TestAttack32GoodFilesMeasuredByAnEvilInitrd(t *testing.T) {
	approved := chosen(t, stockLinux, "initrd /initrd")
	for name, attack := range map[string]func(g *grub){
		"good files behind the evil one": func(g *grub) {
			g.configure()
		},
		"in place of an environment block that is missing": func(g *grub) {
			delete(g.disk, "/grubenv")
			g.configure()
		},
		"with commands that read nothing": func(g *grub) {
			delete(g.disk, "/grubenv")
			g.configure()
			g.run("[ -s /grubenv ]")
			g.run("set have_grubenv=true")
			g.run("load_env")
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGRUB()
			attack(g)
			g.disk["/initrd"] = g.disk["/evilinitrd"]
			g.run(stockLinux)
			g.run("initrd /initrd")
			g.measure(9, "", "a kernel")
			g.measure(9, "", "an initrd")
			g.mislabel()
			boot := appraise(t, g.log(t))
			assert.False(t, boot.Measurement.Equal(approved.Measurement) && boot.Platform.Equal(approved.Platform))
		})
	}
}

// Attack 32: without Secure Boot a module from a disk runs in GRUB, and measures
// nothing.
func TestAttack32NoRolesWithoutSecureBoot(t *testing.T) {
	log := edited(t, "grub-a", func(events []logEvent) []logEvent {
		at := slices.IndexFunc(events, func(e logEvent) bool { return e.pcr == 7 && strings.Contains(string(e.data), wide("SecureBoot")) })
		events[at] = digested(7, evVariableConfig, efiVariable(globalVendor, "SecureBoot", "\x00"))
		return events
	})
	boot := appraise(t, log)
	require.Len(t, boot.Measurement.Values(claims.LoaderFinding), 1)
	assert.Contains(t, boot.Measurement.Values(claims.LoaderFinding)[0], "Secure Boot is not enabled")
}

// Attack 32: a text that the digest does not cover is no command.
func TestAttack32UncoveredTextIsAFinding(t *testing.T) {
	log := edited(t, "grub-a", func(events []logEvent) []logEvent {
		at := slices.IndexFunc(events, func(e logEvent) bool { return strings.Contains(string(e.data), "grub_cmd: echo") })
		events[at].data = []byte("grub_cmd: echo something else\x00")
		return events
	})
	boot := appraise(t, log)
	assert.Contains(t, boot.Measurement.Values(claims.LoaderFinding)[0], "is not the digest of its text")
	assert.Equal(t, replay(t, log), pcrsOf(t, boot))
}

// Whatever is typed in the menu, replaced on the disk and measured later, with
// whatever labels: a boot whose claims are those of the approved one started
// what that one started. An initrd that could not be used leaves a kernel that
// finds no root.
func FuzzApprovedRolesAreWhatWasStarted(f *testing.F) {
	f.Add(true, "an initrd", stockLinux+"\ninitrd /initrd", "")
	f.Add(true, "an evil initrd", stockLinux+"\ninitrd /initrd", "a kernel\nan initrd")
	f.Add(false, "an evil initrd", "[ -s /grubenv ]\nset have_grubenv=true\nload_env\n"+stockLinux+"\ninitrd /initrd", "a kernel\nan initrd")
	f.Add(false, "an initrd", "[ -s /vmlinuz ]\nlinux /evil root=/dev/mapper/root ro quiet\ninitrd /missing /vmlinuz\necho x", "8 initrd /initrd")
	approved := chosen(f, stockLinux, "initrd /initrd")
	want := loaded{"a kernel", strings.TrimPrefix(stockLinux, "linux "), []string{"an initrd"}}
	f.Fuzz(func(t *testing.T, environment bool, initrd, typed, later string) {
		if len(typed)+len(later)+len(initrd) > 2000 {
			return
		}
		g := newGRUB()
		g.disk["/initrd"] = initrd
		if !environment {
			delete(g.disk, "/grubenv")
		}
		g.configure()
		for command := range strings.SplitSeq(typed, "\n") {
			g.run(command)
		}
		for event := range strings.SplitSeq(later, "\n") {
			if command, ok := strings.CutPrefix(event, "8 "); ok {
				g.measure(8, "grub_cmd: ", command)
			} else {
				g.measure(9, "", event)
			}
		}
		g.mislabel()
		boot := appraise(t, g.log(t))
		if boot.Measurement.Equal(approved.Measurement) && boot.Platform.Equal(approved.Platform) && g.loaded.initrds != nil {
			require.Equal(t, want, g.loaded)
		}
	})
}
