//go:build vm && full

package e2e_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/test/e2e"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
	"keywright.dev/unlock/luks"
)

const (
	mib = 1 << 20
	// A volume of three parts, each of which cryptsetup reencrypts between two writes
	// of the header.
	partSize    = 32 * mib
	dataAt      = 16 * mib
	reencrypted = dataAt + 3*partSize
	// filler is how much of it is a file.
	filler = 40 * mib
	// reencryptRate is so slow that there are pauses.
	reencryptRate = mib

	reencryptPatience = 15 * time.Minute
)

// TestVolumeInUseIsReencrypted has the agent of a machine reencrypt the volume that its
// system runs from. It is told to end, and goes on; the power is cut in the middle of a
// part, and again when all data is under the new key but the header is not ended. Each
// time the machine boots unattended, with all its files, and its agent goes on.
func TestVolumeInUseIsReencrypted(t *testing.T) {
	r := newReencryption(t)
	r.start()
	r.awaitWrite(dataAt + partSize/2)
	r.endAgent()
	require.False(t, r.inAPart(), "it ends behind a part")

	r.start()
	r.awaitWrite(dataAt + partSize + partSize/2)
	r.run.Crash()
	require.True(t, r.inAPart(), "it is to be recovered")
	r.bootUnder()

	r.start()
	r.cutAtTheEnd()
	r.bootUnder()

	r.goOnToTheEnd()
	r.turnOff(r.run)
	r.run = r.opens(r.machine)
	vmtest.Expect(t, r.run, "task: ready")
	r.requireTree()
	r.turnOff(r.run)
	require.Equal(t, "none", r.alarms())
}

// TestKilledReencryptionIsRecoveredByABoot has cryptsetup killed in the middle of a part
// of a volume in use. The agent says what is to be done, and after a restart goes on to
// the end.
func TestKilledReencryptionIsRecoveredByABoot(t *testing.T) {
	r := newReencryption(t)
	r.start()
	for r.under() == nil || !r.inAPart() {
		require.NoError(t, t.Context().Err())
		time.Sleep(writePoll)
	}
	require.NoError(t, r.run.Send([]byte("kill -9 $(busybox pidof cryptsetup)\n")))
	vmtest.Expect(t, r.run, "restart the machine: what it reads and writes of the volume may hang, and a boot recovers it")
	require.True(t, r.inAPart())
	r.run.Crash()

	r.bootUnder()
	r.goOnToTheEnd()
	r.turnOff(r.run)
	require.Equal(t, "none", r.alarms())
}

// reencryption is a machine that runs, whose volume is to be reencrypted.
type reencryption struct {
	*site
	run  *vm.Run
	tree string // digest of all files
	// identity and recovery are those of before.
	identity [32]byte
	recovery secret.Bytes
	volume   string
}

// newReencryption boots a machine, and orders a reencryption of its volume.
func newReencryption(t *testing.T) *reencryption {
	t.Helper()
	r := &reencryption{site: newAttendedSite(t, func(system *e2e.System) {
		content := make([]byte, filler)
		_, _ = rand.Read(content)
		system.Size = reencrypted
		system.Files = append(system.Files, vm.File{Path: "/usr/filler", Mode: 0o644, Content: content})
	})}
	r.service.Stop()
	service, err := e2e.ServiceConfig{Program: r.programs.Service, Dir: r.dir, Port: r.service.Port(), ReencryptRate: reencryptRate}.Start(t.Context())
	require.NoError(t, err)
	r.service = service
	t.Cleanup(service.Stop)

	known, err := r.service.Volume(t.Context(), r.machine.Name)
	require.NoError(t, err)
	r.volume = known.ID
	r.identity, r.recovery = r.identityOnDisk(), r.recoveryKey("before")
	r.run = r.opens(r.machine)
	vmtest.Expect(t, r.run, "task: ready")
	r.tree = r.treeDigest()
	r.operate("volume", "reencrypt", r.volume, "--lose-keyslots", "--reason", "a test")
	return r
}

func (r *reencryption) start() {
	r.t.Helper()
	r.do(r.run, "keywright-unlock agent & agent=$!", succeeded)
}

// goOnToTheEnd has the agent finish, which leaves one mapping alone.
func (r *reencryption) goOnToTheEnd() {
	r.t.Helper()
	r.start()
	vmtest.Expect(r.t, r.run, "is reencrypted")
	r.awaitNoOrder()
	r.endAgent()
	r.requireTree()
	r.do(r.run, "[ $(ls -d /sys/block/dm-* | wc -l) = 1 ]", succeeded)
	r.requireReencrypted()
}

func (r *reencryption) endAgent() {
	r.t.Helper()
	r.do(r.run, "kill $agent; wait $agent", succeeded)
}

// treeDigest is over the names and the content of all files of the system.
func (r *reencryption) treeDigest() string {
	r.t.Helper()
	// The line that is typed is shown, too.
	line := r.do(r.run, "echo tree'': $(busybox find / -xdev -type f | busybox sort | busybox xargs busybox sha256sum | busybox sha256sum)", "tree: ")
	digest := regexp.MustCompile(`[0-9a-f]{64}`).FindString(line)
	require.NotEmpty(r.t, digest, line)
	vmtest.Expect(r.t, r.run, succeeded)
	return digest
}

func (r *reencryption) requireTree() {
	r.t.Helper()
	require.Equal(r.t, r.tree, r.treeDigest(), "the files are what they were")
}

// awaitWrite waits until a place on the disk is written to.
func (r *reencryption) awaitWrite(place int64) {
	r.t.Helper()
	before := r.diskAt(place)
	for r.diskAt(place) == before {
		require.NoError(r.t, r.t.Context().Err())
		time.Sleep(writePoll)
	}
}

// inAPart tells whether the header says that a part of the data is being worked on.
func (r *reencryption) inAPart() bool {
	r.t.Helper()
	require.NotNil(r.t, r.under())
	dump, err := exec.CommandContext(r.t.Context(), "cryptsetup", "luksDump", "--dump-json-metadata", r.machine.Disk).Output()
	require.NoError(r.t, err)
	return strings.Contains(string(dump), "in-reencryption")
}

// cutAtTheEnd cuts the power as soon as all data is under the new key.
func (r *reencryption) cutAtTheEnd() {
	r.t.Helper()
	for !r.allDone() {
		require.NoError(r.t, r.t.Context().Err())
		time.Sleep(writePoll)
	}
	r.run.Crash()
	require.True(r.t, r.allDone(), "the header is not ended yet")
}

// bootUnder boots a machine whose header is under reencryption.
func (r *reencryption) bootUnder() {
	r.t.Helper()
	r.run = r.opens(r.machine)
	vmtest.Expect(r.t, r.run, "task: ready")
	r.requireTree()
}

func (r *reencryption) diskAt(place int64) string {
	r.t.Helper()
	disk, err := os.Open(r.machine.Disk)
	require.NoError(r.t, err)
	defer disk.Close()
	block := make([]byte, 4096)
	_, err = disk.ReadAt(block, place)
	require.NoError(r.t, err)
	return string(block)
}

// header reads the header of the disk, which may be written to meanwhile; nil where
// neither of its copies is whole.
func (r *reencryption) header() *luks.Header {
	r.t.Helper()
	disk, err := os.Open(r.machine.Disk)
	require.NoError(r.t, err)
	defer disk.Close()
	header, err := luks.ReadDevice(disk)
	if err != nil {
		return nil
	}
	return header
}

// under is the header where it is under reencryption, and nil where it is not.
func (r *reencryption) under() *luks.Under {
	r.t.Helper()
	header := r.header()
	if header == nil || !header.Reencrypting() {
		return nil
	}
	under, err := header.ValidateUnder()
	require.NoError(r.t, err)
	return under
}

func (r *reencryption) allDone() bool {
	under := r.under()
	return under != nil && under.All()
}

func (r *reencryption) awaitNoOrder() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), reencryptPatience)
	defer cancel()
	for {
		known, err := r.service.Volume(ctx, r.machine.Name)
		require.NoError(r.t, err)
		if known.Order == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (r *reencryption) identityOnDisk() [32]byte {
	r.t.Helper()
	header, err := e2e.ReadHeader(r.machine.Disk)
	require.NoError(r.t, err)
	identity, err := header.Identity().Digest()
	require.NoError(r.t, err)
	return identity
}

// recoveryKey has the service disclose the recovery key.
func (r *reencryption) recoveryKey(name string) secret.Bytes {
	r.t.Helper()
	path := r.path("recovery-" + name)
	r.operate("volume", "recovery-key", r.volume, "--output", path)
	key, err := os.ReadFile(path)
	require.NoError(r.t, err)
	return secret.New(key)
}

// requireReencrypted holds that the header is a plain one of another volume key, with a
// keyslot of ours and one of a new recovery key, and that the service knows it.
func (r *reencryption) requireReencrypted() {
	r.t.Helper()
	header, err := e2e.ReadHeader(r.machine.Disk)
	require.NoError(r.t, err, "no requirement, no keyslot of a reencryption")
	assert.Len(r.t, header.OwnTokens(), 2)
	assert.Len(r.t, header.OwnSlots(r.volume), 1)
	slots := header.SlotsFor(r.volume, luks.PurposeRecovery)
	require.Len(r.t, slots, 1)
	assert.Len(r.t, header.Inventory().Keyslots, 2)
	identity := r.identityOnDisk()
	assert.NotEqual(r.t, r.identity, identity)

	known, err := r.service.Volume(r.t.Context(), r.machine.Name)
	require.NoError(r.t, err)
	assert.Equal(r.t, hex.EncodeToString(identity[:]), known.Identity)
	assert.Empty(r.t, strings.Join(known.Alarms, " "))
	assert.Empty(r.t, known.Foreign)

	test := func(key secret.Bytes) error {
		return luks.Cryptsetup{}.TestAnyKey(r.t.Context(), r.machine.Disk, key)
	}
	require.NoError(r.t, test(r.recoveryKey("after")))
	require.ErrorIs(r.t, test(r.recovery), luks.ErrWrongKey)
	require.ErrorIs(r.t, test(r.passphrase), luks.ErrWrongKey)
}
