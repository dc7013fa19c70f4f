package kafka

import "encoding/binary"

// partitionOf is the partition the Java client's default partitioner picks for
// a key: its murmur2, made positive by dropping the sign bit, modulo the count.
// It is walpost's own rather than the client library's, so that a partition
// stays a function of the event whatever library sends it.
func partitionOf(hashKey []byte, count int32) int32 {
	return int32(murmur2(hashKey)&0x7fffffff) % count // #nosec G115 -- 31 bits
}

// murmur2 is org.apache.kafka.common.utils.Utils.murmur2: MurmurHash2 by Austin
// Appleby, 32 bits, with Kafka's seed.
func murmur2(data []byte) uint32 {
	const (
		seed  = 0x9747b28c
		mult  = 0x5bd1e995
		shift = 24
	)
	h := seed ^ uint32(len(data)) // #nosec G115 -- defined modulo 2^32
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data) * mult
		k ^= k >> shift
		h = h*mult ^ k*mult
	}
	if len(data) > 0 {
		var tail [4]byte
		copy(tail[:], data)
		h = (h ^ binary.LittleEndian.Uint32(tail[:])) * mult
	}
	h = (h ^ h>>13) * mult
	return h ^ h>>15
}
