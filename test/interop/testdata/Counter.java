/** Counts, a number per line; what it has counted to is in its memory only. */
public class Counter {
    public static void main(String[] args) throws Exception {
        System.out.println("ready");
        for (int n = 1;; n++) {
            System.out.println(n);
            Thread.sleep(10);
        }
    }
}
