// Package storetest owns the conformance suite of stores: each sentence that
// package kms says of [kms.Store] and [kms.ServiceKeys] is a test here, which
// every implementation runs.
//
// It refuses to know how a store keeps its rows, and what they mean: crashes
// and backups are tested beside each store.
package storetest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// Store is what the suite tests.
type Store interface {
	kms.Store
	kms.ServiceKeys
}

// Run runs the suite. open returns an empty store, which it closes when the
// test ends; the suite runs tests side by side.
func Run(t *testing.T, open func(t *testing.T) Store) {
	t.Helper()
	tests := map[string]func(*testing.T, Store){
		"State":                 testState,
		"StateIsACopy":          testStateIsACopy,
		"StateOfNothing":        testStateOfNothing,
		"MeasurementsOfGroup":   testMeasurementsOfGroup,
		"Counters":              testCounters,
		"ExtremeValues":         testExtremeValues,
		"Replace":               testReplace,
		"RecoveryKeys":          testRecoveryKeys,
		"DropVolumes":           testDropVolumes,
		"DropMachine":           testDropMachine,
		"FormerVolumes":         testFormerVolumes,
		"SameKey":               testSameKey,
		"AlarmedVolumes":        testAlarmedVolumes,
		"AlarmCounts":           testAlarmCounts,
		"Announced":             testAnnounced,
		"Announcements":         testAnnouncements,
		"OldestApproved":        testOldestApproved,
		"Holding":               testHolding,
		"Pins":                  testPins,
		"ChangedServiceKeys":    testChangedServiceKeys,
		"WholeOrNotAtAll":       testWholeOrNotAtAll,
		"UniqueNames":           testUniqueNames,
		"RowsOfNobody":          testRowsOfNobody,
		"DecisionFails":         testDecisionFails,
		"DecisionPanics":        testDecisionPanics,
		"DecisionExits":         testDecisionExits,
		"Refusal":               testRefusal,
		"RedeemOnce":            testRedeemOnce,
		"RedeemRace":            testRedeemRace,
		"Serial":                testSerial,
		"RevocationConflicts":   testRevocationConflicts,
		"UncommittedIsUnseen":   testUncommittedIsUnseen,
		"Canceled":              testCanceled,
		"CanceledWhileWaiting":  testCanceledWhileWaiting,
		"CanceledTooLate":       testCanceledTooLate,
		"NotFound":              testNotFound,
		"FindMachines":          testFindMachines,
		"Leader":                testLeader,
		"Term":                  testTerm,
		"RotationPause":         testRotationPause,
		"RotationRuns":          testRotationRuns,
		"FindVolumes":           testFindVolumes,
		"PagesOfMachines":       testPagesOfMachines,
		"PagesOfVolumes":        testPagesOfVolumes,
		"PagesOfMeasurements":   testPagesOfMeasurements,
		"ApprovedMeasurements":  testApprovedMeasurements,
		"FindMeasurements":      testFindMeasurements,
		"Platforms":             testPlatforms,
		"Counts":                testCounts,
		"Limits":                testLimits,
		"Keyrings":              testKeyrings,
		"ServiceKeys":           testServiceKeys,
		"KeysExist":             testKeysExist,
		"KeyringUses":           testKeyringUses,
		"DismissedUses":         testDismissedUses,
		"RetiredUses":           testRetiredUses,
		"ReplaceServiceKey":     testReplaceServiceKey,
		"Wrappers":              testWrappers,
		"LeaseEpoch":            testLeaseEpoch,
		"KeyringState":          testKeyringState,
		"KeyringConflicts":      testKeyringConflicts,
		"KeyringRace":           testKeyringRace,
		"RetiredVersions":       testRetiredVersions,
		"MovedSecrets":          testMovedSecrets,
		"Orders":                testOrders,
		"DroppedSecrets":        testDroppedSecrets,
		"HeaderCopies":          testHeaderCopies,
		"VolumeKeys":            testVolumeKeys,
		"VolumesToPlan":         testVolumesToPlan,
		"WrappedEver":           testWrappedEver,
		"NamedServiceKeys":      testNamedServiceKeys,
		"SecretsOn":             testSecretsOn,
		"Census":                testCensus,
		"SequenceNothing":       testSequenceNothing,
		"Sequence":              testSequence,
		"SequenceFails":         testSequenceFails,
		"SequenceRefusesMisfit": testSequenceRefusesMisfit,
		"SequenceRace":          testSequenceRace,
		"SequencedEntries":      testSequencedEntries,
		"LatestEntries":         testLatestEntries,
		"TreeHashes":            testTreeHashes,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			if name != "Keyrings" { // it begins without any
				require.NoError(t, AddKeyring(s))
			}
			test(t, s)
		})
	}
}
