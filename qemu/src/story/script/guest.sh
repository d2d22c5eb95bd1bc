# The guest's part of the story: each line that begins with `guest ` is something that it did. It has a secret, and keeps
# it until its console says that it may go.

set -e

fail() {
    echo "guest failed: $*"
    exit 1
}

# How many of the numbers up to $1 are prime.
primes() {
    seq 2 $1 | awk '{ for (n = 2; n * n <= $1; n++) if ($1 % n == 0) next; found++ } END { print found }'
}

# Opened once: what is typed is lost when a terminal is closed.
exec 3<>/dev/hvc0
echo "guest release=$(uname -r) cpus=$(nproc)"
dmesg | grep -q 'created restricted DMA pool' || fail "there is no pool to lend"
echo "guest primes=$(primes 1000)"

dd if=/dev/urandom of=/tmp/data bs=64k count=16 2>/dev/null
dd if=/tmp/data of=/dev/vda bs=64k conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/vda of=/tmp/back bs=64k count=16 2>/dev/null
cmp /tmp/data /tmp/back || fail "the disk reads what was not written"
echo "guest disk=$(md5sum </tmp/data | cut -c 1-32)"
rm /tmp/data /tmp/back

for try in $(seq 200); do
    inflated=$(awk '$1 == "balloon_inflate" { print $2 }' /proc/vmstat)
    [ "$inflated" -lt 8192 ] || break
    usleep 100000
done
echo "guest relinquished=$inflated"

word=$(echo "a guest's secret" | md5sum | cut -c 1-15)
yes "$word" | dd of=/tmp/secret bs=1M count=8 iflag=fullblock 2>/dev/null
sum=$(md5sum </tmp/secret)
# A guest that is careless lets its host see some of it.
[ -z "$SPOILED" ] || dd if=/tmp/secret of=/dev/vda bs=64k seek=16 count=32 conv=fsync 2>/dev/null
echo "guest secret=kept pages=2048"
echo "the guest has a secret" >&3
read -t 150 -r line <&3 || fail "nothing is typed"
[ "$line" = "you may go" ] || fail "the console heard: $line"
[ "$(md5sum </tmp/secret)" = "$sum" ] || fail "the secret has changed"
echo "guest secret=intact"
