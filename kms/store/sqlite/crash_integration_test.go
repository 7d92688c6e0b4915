//go:build integration

package sqlite_test

import "testing"

// The same as without the tag, for longer.

func TestKilledUnderLoadLonger(t *testing.T)     { killedUnderLoad(t, 60) }
func TestKilledDuringBackupLonger(t *testing.T)  { killedDuringBackup(t, 30) }
func TestKilledDuringRestoreLonger(t *testing.T) { killedDuringRestore(t, 80) }
func TestKilledDuringCreationLonger(t *testing.T) {
	killedDuringCreation(t, 60)
}
