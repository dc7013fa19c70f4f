package checkpoint

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestLSNText(t *testing.T) {
	tests := map[string]LSN{
		"0/0":               0,
		"0/16B3748":         0x16B3748,
		"1/0":               1 << 32,
		"16/B374D848":       0x16_B374D848,
		"FFFFFFFF/FFFFFFFF": math.MaxUint64,
	}
	for text, lsn := range tests {
		if got := lsn.String(); got != text {
			t.Errorf("%d is written %s, want %s", uint64(lsn), got, text)
		}
	}
}

func TestLSNRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lsn := LSN(rapid.Uint64().Draw(t, "lsn"))
		text, err := lsn.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var again LSN
		if err := again.UnmarshalText(text); err != nil || again != lsn {
			t.Fatalf("%s came back as %s, %v", text, again, err)
		}
	})
}

func TestLSNReadsWhatPostgresReads(t *testing.T) {
	for _, text := range []string{"0/16b3748", "0/016B3748", "00000000/16B3748"} {
		var lsn LSN
		if err := lsn.UnmarshalText([]byte(text)); err != nil || lsn != 0x16B3748 {
			t.Errorf("%s is read as %s, %v", text, lsn, err)
		}
	}
}

func TestLSNRejectsGarbage(t *testing.T) {
	for _, text := range []string{
		"", "/", "0", "0/", "/0", "0/0/0", "0/0 ", " 0/0", "0/G", "-1/0", "+1/0", "0x1/0", "1_0/0", "0/123456789", "000000000/0", "0\\0", "0/é",
	} {
		lsn := LSN(7)
		if err := lsn.UnmarshalText([]byte(text)); err == nil || lsn != 7 {
			t.Errorf("%q is read as %s, %v", text, lsn, err)
		}
	}
}
