package kafka

import (
	"strings"
	"testing"
)

// The vectors are those of the Java client's own test (UtilsTest.testMurmur2).
func TestMurmur2IsJavas(t *testing.T) {
	for data, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(data))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", data, got, want)
		}
	}
}

func TestPartitionIsWithinCount(t *testing.T) {
	seen := map[int32]bool{}
	for length := range 200 {
		p := partitionOf([]byte(strings.Repeat("é", length)), 7)
		if p < 0 || p >= 7 {
			t.Fatalf("partition %d of 7", p)
		}
		seen[p] = true
	}
	if len(seen) != 7 {
		t.Errorf("200 keys reached %d of 7 partitions", len(seen))
	}
	// toPositive(-973932308) % 6, as the Java client computes it.
	if got := partitionOf([]byte("21"), 6); got != (-973932308&0x7fffffff)%6 {
		t.Errorf(`partition of "21" among 6 is %d`, got)
	}
}
