package claims

import (
	"crypto/sha256"
	"encoding/hex"
	"unicode/utf16"
)

// Names of claims that may come from several PCRs. Their values begin with the
// PCR's number and a space.
const (
	// Separator is the end of the firmware's measurements into one of PCRs 0
	// to 7 (TCG PC Client PFP, EV_SEPARATOR): "4 00000000" or "4 ffffffff".
	Separator = "separator"
	// Action is one of the texts that firmware measures when it does
	// something, such as "4 Calling EFI Application from Boot Option".
	Action = "action"
	// Unexplained is an event that nothing here can name: PCR and digest.
	Unexplained = "unexplained"
)

// Names of claims of a measurement, by the PCR that vouches for them. Values
// are digests where nothing else is said.
const (
	// FirmwareLocality is the locality that the firmware started the TPM from,
	// "3" or "4"; absent for 0. PCR 0.
	FirmwareLocality = "firmware.locality"
	// FirmwareCRTM is the version of the root of trust for measurement. PCR 0.
	FirmwareCRTM = "firmware.crtm"
	// FirmwareBlob is one firmware volume. PCR 0.
	FirmwareBlob = "firmware.blob"
	// BootApplication is the Authenticode digest of one EFI program that the
	// firmware loaded. PCR 4.
	BootApplication = "boot.application"
	// SecureBoot is [Enabled] or [Disabled]. PCR 7.
	SecureBoot = "secureboot.state"
	// SecureBootPK is the platform key's variable. PCR 7.
	SecureBootPK = "secureboot.pk"
	// SecureBootKEK is the key exchange keys' variable. PCR 7.
	SecureBootKEK = "secureboot.kek"
	// SecureBootDB is the allowed signers' variable. PCR 7.
	SecureBootDB = "secureboot.db"
	// SecureBootDBX is the forbidden signers' variable. PCR 7.
	SecureBootDBX = "secureboot.dbx"
	// SecureBootAuthority is what allowed a program to run: the name of the
	// variable it stands in and the digest of the entry. PCR 7.
	SecureBootAuthority = "secureboot.authority"
	// LoaderCommand is what a boot loader measured as commands. PCR 8. Of a
	// measurement where nothing tells their roles, else of a state.
	LoaderCommand = "loader.command"
	// LoaderFile is a file that a boot loader read. PCR 9. Of a measurement
	// where nothing tells their roles, else of a platform.
	LoaderFile = "loader.file"
	// LoaderFinding says why the roles of a boot loader's measurements cannot
	// be told. PCRs 8 and 9.
	LoaderFinding = "loader.finding"
	// LoaderKernel is the kernel's file as the boot loader read it. PCR 9.
	LoaderKernel = "loader.kernel"
	// LoaderCommandLine is the text of the command line that the boot loader
	// gave to the kernel, its path first, with "<1>" and so on for what names
	// one machine; see [LoaderVariable]. PCR 8.
	LoaderCommandLine = "loader.cmdline"
	// KernelCommandLine is the command line as the kernel's EFI stub received
	// it; see [CommandLineDigest]. PCR 9.
	KernelCommandLine = "kernel.cmdline"
	// KernelInitrd is the initrd as the kernel's EFI stub received it. PCR 9.
	KernelInitrd = "kernel.initrd"
	// UKIPrefix begins the names of the sections of a unified kernel image,
	// such as "uki.linux", in the order in which systemd-stub measured them.
	// PCR 11.
	UKIPrefix = "uki."
	// StubCommandLine is the text of a command line that came from outside the
	// unified kernel image. PCR 12.
	StubCommandLine = "stub.cmdline"
	// StubParameter is any other parameter from outside, such as a credential.
	// PCR 12.
	StubParameter = "stub.parameter"
	// StubExtension is a system extension that the stub passed on. PCR 13.
	StubExtension = "stub.extension"
	// ShimMOK is a list of machine owner keys that shim used. PCR 14.
	ShimMOK = "shim.mok"
)

// Values of [SecureBoot].
const (
	Enabled  = "enabled"
	Disabled = "disabled"
)

// Sections of a unified kernel image that other code needs by name.
const (
	UKILinux       = UKIPrefix + "linux"
	UKICommandLine = UKIPrefix + "cmdline"
	UKIInitrd      = UKIPrefix + "initrd"
)

// Names of claims of a platform.
const (
	// BootVariable is the content of a boot variable whose name the digest
	// does not cover. PCR 1.
	BootVariable = "boot.variable"
	// BootEntry is the name and the digest of a boot variable whose digest
	// covers its name, such as "Boot0001 3197…". PCR 1.
	BootEntry = "boot.entry"
	// PlatformTable is a table of the platform, such as SMBIOS. PCR 1.
	PlatformTable = "platform.table"
	// DiskLayout is the partition table of the disk booted from. PCR 5.
	DiskLayout = "disk.gpt"
	// LoaderVariable is the number that [LoaderCommandLine] has for a device or
	// UUID, and its value: "1 /dev/mapper/root". PCR 8.
	LoaderVariable = "loader.variable"
	// LoaderEnvironment stands among the files of a platform as [Present] where
	// the boot loader read its environment block, which may be another at each
	// boot; its digests are claims of the state. PCR 9.
	LoaderEnvironment = "loader.environment"
	// LoaderInitrd is one file of the initrd as the boot loader read it, in
	// their order. PCR 9.
	LoaderInitrd = "loader.initrd"
)

// Names of claims of a state.
const (
	// TPMResetCount counts the TPM's resets, decimal.
	TPMResetCount = "tpm.reset-count"
	// TPMRestartCount counts restarts and resumes since the last reset.
	TPMRestartCount = "tpm.restart-count"
	// TPMClock is the TPM's clock in milliseconds.
	TPMClock = "tpm.clock"
	// TPMClockSafe is "yes" while no higher clock may have been reported.
	TPMClockSafe = "tpm.clock-safe"
	// TPMFirmware is the TPM's firmware version, 16 hexadecimal digits.
	TPMFirmware = "tpm.firmware"
	// BootPhase is the last phase that systemd measured into PCR 11, such as
	// "enter-initrd", or "none".
	BootPhase = "boot.phase"
	// PCR15 is the value of PCR 15.
	PCR15 = "pcr15"
)

// Names of claims of files alone, beside those of a measurement.
const (
	// KernelImage is the Authenticode digest of the kernel inside a unified
	// kernel image.
	KernelImage = "kernel.image"
	// CommandLineText is the command line that [KernelCommandLine] of the same
	// set is the digest of, for people to read.
	CommandLineText = "kernel.cmdline-text"
	// ImageSignature is [Present] or [Absent]: whether the image carries a
	// signature.
	ImageSignature = "image.signature"
)

// Values of [ImageSignature] and [LoaderEnvironment].
const (
	Present = "present"
	Absent  = "absent"
)

// CommandLineDigest returns the value that [KernelCommandLine] has for a
// command line: the SHA-256 of the text in UTF-16LE with a NUL at its end.
func CommandLineDigest(text string) string {
	var b []byte
	for _, unit := range append(utf16.Encode([]rune(text)), 0) {
		b = append(b, byte(unit), byte(unit>>8))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// UKISections returns the names, without their dot, of the sections of a
// unified kernel image that systemd-stub measures, in the order in which it
// measures them (systemd, src/fundamental/uki.h).
func UKISections() []string {
	return []string{
		"linux", "osrel", "cmdline", "initrd", "ucode", "splash", "dtb", "uname",
		"sbat", "pcrpkey", "profile", "dtbauto", "hwids", "efifw",
	}
}
