/** `scene4d view --phone`, from an address of this machine that is not the loopback's. */
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { devices } from "playwright-core";
import { afterEach, describe, expect, it } from "vitest";
import { ROOT } from "./harness";
import { bench, until } from "./pages";
import { type Viewing, viewing, withoutPython } from "./python";

const CHAIR = join(ROOT, "tests/fixtures/chair.s4d");
const PIXEL = devices["Pixel 7"]!;
/** Browsers trust 127.0.0.1 as they trust HTTPS; only another address shows what a phone gets. */
const ADDRESS = Object.values(networkInterfaces())
  .flat()
  .find((found) => found?.family === "IPv4" && !found.internal)?.address;

let served: Viewing | null = null;
async function phone(...args: string[]): Promise<Viewing> {
  served = await viewing(CHAIR, "--phone", "--host", ADDRESS!, ...args);
  return served;
}
afterEach(async () => {
  await served?.end();
  served = null;
});

/** Status and text of exactly this request target; browsers would tidy it. */
function raw(url: string, path: string): Promise<{ status: number; text: string }> {
  const { protocol, hostname, port } = new URL(url);
  const ask = protocol === "https:" ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const sent = ask({ hostname, port, path, rejectUnauthorized: false }, (response) => {
      let text = "";
      response.setEncoding("latin1");
      response.on("data", (data) => {
        text += data;
      });
      response.on("end", () => resolve({ status: response.statusCode!, text }));
    });
    sent.on("error", reject);
    sent.end();
  });
}

describe.skipIf(withoutPython || !ADDRESS)("a phone in the same network", () => {
  const b = bench();

  it("plays over plain HTTP with WebGL 2, where nothing comes without the token", async () => {
    const { url, told } = await phone();
    expect(url).toMatch(new RegExp(`^http://${ADDRESS}:\\d+/[\\w-]{22}/$`));
    expect(told()).toContain("WebGL2");
    const page = await (await b.browser.newContext(PIXEL)).newPage();
    await page.goto(url);
    await until(page, () => Boolean(window.scene4d));
    await page.evaluate(() => window.scene4d.ready);
    const seen = await page.evaluate(() => ({
      secure: isSecureContext,
      gpu: "gpu" in navigator,
      backend: window.scene4d.backend,
      splats: window.scene4d.stats().splats,
      width: document.documentElement.scrollWidth,
    }));
    const width = PIXEL.viewport.width;
    expect(seen).toEqual({ secure: false, gpu: false, backend: "webgl2", splats: 5000, width });
    await page.close();
    const token = new URL(url).pathname.split("/")[1]!;
    expect((await raw(url, `/${token}/`)).status).toBe(200);
    const other = token.replace(/^./, (c) => (c === "A" ? "B" : "A"));
    const up = ["../", "..%2f", "%2e%2e/", "%252e%252e/", "..\\", "..%5c", "....//", ".%00./"];
    const paths = [
      "/",
      "/scene.s4d",
      `/${other}/`,
      `/${other}/scene.s4d`,
      `/${token.slice(0, -1)}/`,
      `/${token}${token}/`,
      `/${token}/assets/`,
      `/${token}/package.json`,
      `/${token}//etc/passwd`,
      `/${token}/%2fetc%2fpasswd`,
      `/${token}/file:///etc/passwd`,
      ...up.map((step) => `/${token}/${step.repeat(12)}etc/passwd`),
      ...up.map((step) => `/${token}/assets/${step.repeat(12)}etc/passwd`),
      ...up.map((step) => `/${step.repeat(12)}etc/passwd`),
    ];
    for (const path of paths) {
      const { status, text } = await raw(url, path);
      expect([path, status]).toEqual([path, 404]);
      expect(text).not.toMatch(/root:|<script|scene4d-player/);
    }
    expect(await served!.end()).toBe(0);
  });
});

describe.skipIf(withoutPython || !ADDRESS)("a phone over HTTPS", () => {
  const b = bench("webgpu");

  it("is warned of the certificate, and then has WebGPU", async () => {
    const { url, told } = await phone("--https", "always");
    expect(url).toMatch(new RegExp(`^https://${ADDRESS}:`));
    const careful = await (await b.browser.newContext(PIXEL)).newPage();
    await expect(careful.goto(url)).rejects.toThrow("ERR_CERT_AUTHORITY_INVALID");
    const page = await (
      await b.browser.newContext({ ...PIXEL, ignoreHTTPSErrors: true })
    ).newPage();
    // The certificate is the one whose fingerprint was told, for this address.
    const session = await page.context().newCDPSession(page);
    await session.send("Network.enable");
    const response = (await page.goto(url))!;
    const certificate = (await response.securityDetails())!;
    expect(certificate.subjectName).toContain(ADDRESS!);
    expect(told()).toContain("SHA-256");
    await until(page, () => Boolean(window.scene4d));
    await page.evaluate(() => window.scene4d.ready);
    const seen = await page.evaluate(() => [
      isSecureContext,
      window.scene4d.backend,
      window.scene4d.stats().splats,
    ]);
    expect(seen).toEqual([true, "webgpu", 5000]);
    const insecure = await raw(url, "/scene.s4d");
    expect(insecure.status).toBe(404);
  });
});
