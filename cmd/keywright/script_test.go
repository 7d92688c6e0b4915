package main

import (
	"bytes"
	"database/sql"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // the driver that poison opens

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

// TestMain lets the test binary be the command that the scripts run.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"keywright": func() { os.Exit(run()) },
	})
}

func TestScripts(t *testing.T) {
	logs, err := filepath.Abs(filepath.Join("..", "..", "kms", "attest", "testdata", "eventlogs"))
	require.NoError(t, err)
	image, err := filepath.Abs(filepath.Join("testdata", "next.efi"))
	require.NoError(t, err)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), RequireUniqueNames: true, RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			dir := filepath.Join(env.WorkDir, "d")
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			env.Setenv("D", dir)
			env.Setenv("UKI", image)
			env.Setenv("TMPDIR", dir)
			// Under the race detector each program would wait a second as it ends.
			env.Setenv("GORACE", "atexit_sleep_ms=10")
			env.Values["fleet"] = &fleet{logs: logs, machines: make(map[string]*sim.Machine)}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await": await, "enroll": enroll, "boot": boot, "restore": restore, "addslot": addSlot, "rekey": rekey, "reencrypt": reencrypt, "waits": waits, "copydisk": copyDisk, "tamper": tamper, "poison": poison, "grow": grow,
			"identity": identity, "answer": answer,
		},
	})
}

// fleet is the machines of one script.
type fleet struct {
	logs     string
	machines map[string]*sim.Machine
}

func fleetOf(ts *testscript.TestScript) *fleet {
	return ts.Value("fleet").(*fleet)
}

func (f *fleet) log(ts *testscript.TestScript, name string) *sim.Log {
	log, err := sim.ReadLog(filepath.Join(f.logs, name+".bin"))
	ts.Check(err)
	return log
}

// await waits until the service that announces itself in the file D/out is
// ready, and sets KEYWRIGHT_ADDR, URL and PIN.
func await(ts *testscript.TestScript, _ bool, _ []string) {
	path := filepath.Join(ts.Getenv("D"), "out")
	for range 1000 {
		text, _ := os.ReadFile(path) // it may not be there yet
		said := announcement(string(text))
		if isReady(said["metrics"]) {
			ts.Setenv("KEYWRIGHT_ADDR", said["operators use"])
			ts.Setenv("URL", said["guests connect to"])
			ts.Setenv("PIN", said["service key"])
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("the service did not become ready")
}

func announcement(text string) map[string]string {
	said := make(map[string]string)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, "  ")
		said[name] = strings.TrimSpace(value)
	}
	return said
}

func isReady(metrics string) bool {
	response, err := http.Get(strings.TrimSuffix(metrics, "/metrics") + "/readyz")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func guestOf(ts *testscript.TestScript) *api.GuestClient {
	guest, err := api.NewGuestClient(ts.Getenv("URL"), nil)
	ts.Check(err)
	return guest
}

// enroll enrols a new simulated machine: enroll NAME. EK becomes its EK hash.
func enroll(ts *testscript.TestScript, _ bool, args []string) {
	enrolWith(ts, args[0], func(*sim.Machine) {})
}

// enrolWith enrols a new simulated machine that change has changed.
func enrolWith(ts *testscript.TestScript, name string, change func(*sim.Machine)) {
	f := fleetOf(ts)
	pin, err := hex.DecodeString(strings.TrimPrefix(ts.Getenv("PIN"), "sha256:"))
	ts.Check(err)
	m, err := sim.NewMachine(name, f.log(ts, "ovmf-uki"), [32]byte(pin), 1)
	ts.Check(err)
	change(m)
	ctx, cancel := testContext()
	defer cancel()
	guest := guestOf(ts)
	defer guest.Close()
	ts.Check(m.Enroll(ctx, guest))
	f.machines[name] = m
	ts.Setenv("EK", m.TPM.Machine())
}

// boot restarts a machine with a recorded log, which then asks for its keys:
// [!] boot NAME LOG [CODE].
func boot(ts *testscript.TestScript, neg bool, args []string) {
	f := fleetOf(ts)
	m := f.machines[args[0]]
	m.Log = f.log(ts, args[1])
	m.Boot()
	ctx, cancel := testContext()
	defer cancel()
	guest := guestOf(ts)
	defer guest.Close()
	_, err := m.Unlock(ctx, guest)
	switch {
	case !neg:
		ts.Check(err)
	case err == nil:
		ts.Fatalf("machine %s received its keys", args[0])
	case !strings.Contains(err.Error(), args[2]):
		ts.Fatalf("refused with %v, want %s", err, args[2])
	}
}

// restore puts a machine's TPM back by some boots: restore NAME BOOTS.
func restore(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 32)
	ts.Check(err)
	fleetOf(ts).machines[args[0]].TPM.Clock.ResetCount -= uint32(n)
}

// addSlot adds a keyslot to a machine's volume: addslot NAME SLOT.
func addSlot(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	v := &fleetOf(ts).machines[args[0]].Volumes[0]
	v.Slots = append(v.Slots, exchange.LUKSSlot{ID: n, KDF: "argon2id", Priority: 1})
}

// rekey has a running machine carry out the order of its first volume: rekey NAME
// [ask | header], which only asks, and sends the copy of the header.
func rekey(ts *testscript.TestScript, _ bool, args []string) {
	m := fleetOf(ts).machines[args[0]]
	ctx, cancel := testContext()
	defer cancel()
	guest := guestOf(ts)
	defer guest.Close()
	if len(args) > 1 {
		got, err := m.AskRekey(ctx, guest, 0)
		ts.Check(err)
		if args[1] == "header" {
			ts.Check(m.KeepHeader(ctx, guest, 0, got))
		}
		return
	}
	ts.Check(m.Rekey(ctx, guest, 0))
}

// reencrypt has a machine carry out the reencryption of its volume: reencrypt NAME, or
// reencrypt NAME half, which ends in the middle of it.
func reencrypt(ts *testscript.TestScript, _ bool, args []string) {
	m := fleetOf(ts).machines[args[0]]
	ctx, cancel := testContext()
	defer cancel()
	guest := guestOf(ts)
	defer guest.Close()
	if len(args) == 1 {
		ts.Check(m.Reencrypt(ctx, guest, 0))
		return
	}
	got, err := m.AskRekey(ctx, guest, 0)
	ts.Check(err)
	m.Volumes[0].AddRecovery(got)
	ts.Check(m.ReportStage(ctx, guest, 0, exchange.StageReady, exchange.RekeyReady))
	m.Volumes[0].LoseKeyslots()
	m.Volumes[0].BeginReencryption()
	ts.Check(m.ReportStage(ctx, guest, 0, exchange.StageBegun, exchange.RekeyReencrypting))
	ts.Check(m.ReportStage(ctx, guest, 0, exchange.StageProgress, exchange.RekeyReencrypting))
}

// waits has an agent of a machine wait for orders, until there are some: waits NAME.
func waits(ts *testscript.TestScript, _ bool, args []string) {
	machine, guest := fleetOf(ts).machines[args[0]].TPM.Machine(), guestOf(ts)
	ctx, cancel := testContext()
	done := make(chan struct{})
	ts.Defer(func() { cancel(); <-done })
	go func() {
		defer close(done)
		defer guest.Close()
		_, _ = guest.Orders(ctx, machine) // the script says what it waited for
	}()
}

// copyDisk enrols a new machine with the volume key of another: copydisk NAME NEW.
func copyDisk(ts *testscript.TestScript, _ bool, args []string) {
	original := fleetOf(ts).machines[args[0]]
	enrolWith(ts, args[1], func(m *sim.Machine) { m.Volumes[0].VolumeKeyDigest = original.Volumes[0].VolumeKeyDigest })
}

// poison spoils one wrapped secret of a store that is closed: poison FILE.
func poison(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	defer db.Close()
	_, err = db.Exec(`UPDATE secrets SET wrapped = substr(wrapped, 1, 100) || 'AAAA' || substr(wrapped, 105)
		WHERE purpose = 'luks-keyslot' AND volume = (SELECT min(volume) FROM secrets)`)
	ts.Check(err)
}

// grow makes the keys of a stopped service's store older: grow FILE DAYS.
func grow(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	defer db.Close()
	days, err := strconv.Atoi(args[1])
	ts.Check(err)
	for _, table := range []string{"secrets", "volumes", "keyring_versions"} {
		_, err = db.Exec("UPDATE "+table+" SET created = created - ?", int64(days)*24*time.Hour.Microseconds())
		ts.Check(err)
	}
	_, err = db.Exec("UPDATE volumes SET reencrypted = reencrypted - ? WHERE reencrypted > 0", int64(days)*24*time.Hour.Microseconds())
	ts.Check(err)
}

// tamper replaces a text in a file: tamper FILE OLD NEW.
func tamper(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	text, err := os.ReadFile(path)
	ts.Check(err)
	changed := bytes.Replace(text, []byte(args[1]), []byte(args[2]), 1)
	if bytes.Equal(text, changed) {
		ts.Fatalf("%s does not contain %s", args[0], args[1])
	}
	ts.Check(os.WriteFile(path, changed, 0o600))
}
